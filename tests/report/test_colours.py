"""Colours: the ramp is even, the palette can be told apart by all eyes, text can be read on both."""

import itertools
import re

import numpy as np

from moejax.report.colours import (
    BLACK,
    LEVELS,
    PALETTE,
    WHITE,
    contrast,
    hexed,
    level,
    levels,
    luminance,
    ramp,
    rgb,
)

EYES = {
    "normal": np.eye(3),
    "protan": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deutan": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}  # Machado, Oliveira, Fernandes 2009, severity 1


def oklab(linear):
    first = np.array([[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
                      [0.0883024619, 0.2817188376, 0.6299787005]])  # fmt: skip
    second = np.array([[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
                       [0.0259040371, 0.7827717662, -0.8086757660]])  # fmt: skip
    return second @ np.cbrt(first @ linear)


def seen(colour, eye):
    part = np.array(rgb(colour))
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    return oklab(np.clip(EYES[eye] @ linear, 0, 1))


def test_sixteen_colours_are_apart_for_all_eyes():
    assert len(set(PALETTE)) == 16
    for eye in EYES:
        gaps = [np.linalg.norm(seen(a, eye) - seen(b, eye)) for a, b in itertools.combinations(PALETTE, 2)]
        assert min(gaps) > 0.07, eye  # 0.02 is about what can just be told apart


def test_the_ramp_goes_from_dark_to_light():
    assert hexed(ramp(0.0)) == "#440154" and hexed(ramp(1.0)) == "#fde725"
    assert hexed(ramp(-3.0)) == hexed(ramp(0.0)) and hexed(ramp(7.0)) == hexed(ramp(1.0))
    assert hexed(ramp(0.5)) == "#22908c"  # halfway between its two middle colours
    lights = [luminance(ramp(i / 100)) for i in range(101)]
    assert all(low < high for low, high in itertools.pairwise(lights))


def test_levels():
    assert [level(x, 0.0, 1.0) for x in (-1.0, 0.0, 0.5, 1.0, 9.0)] == [0, 0, 32, LEVELS - 1, LEVELS - 1]
    assert level(0.3, 0.3, 0.3) == 0


def test_numbers_can_be_read_on_every_level():
    found = re.findall(r"\.v(\d+)\{background:(#\w{6});color:#(\w)\w\w\}", levels())
    assert [int(number) for number, _, _ in found] == list(range(LEVELS))
    for _, ground, ink in found:
        assert contrast(rgb(ground), WHITE if ink == "f" else BLACK) >= 4.5


def test_contrast_is_that_of_the_guideline():
    assert contrast(BLACK, WHITE) == 21
    assert round(contrast(rgb("#767676"), WHITE), 2) == 4.54
