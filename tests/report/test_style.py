"""The style sheet: both schemes are readable, and nothing is fetched."""

import re

import pytest

from moejax.report.colours import PALETTE, WHITE, contrast, rgb
from moejax.report.style import sheet

LIGHT, DARK = re.findall(r":root\{(?:color-scheme[^;]*;)?(--ground.*?)\}", sheet(), re.S)


def variables(text):
    return dict(re.findall(r"--(\w+):([^;}]+)", text))


def blend(front, back, share):
    r, g, b = (share * f + (1 - share) * k for f, k in zip(front, back, strict=True))
    return r, g, b


@pytest.mark.parametrize("scheme", [LIGHT, DARK])
def test_text_can_be_read_on_the_ground_and_on_every_token(scheme):
    said = variables(scheme)
    ground, ink, quiet = (rgb(long(said[name])) for name in ("ground", "ink", "quiet"))
    assert contrast(ink, ground) > 10 and contrast(quiet, ground) > 4.5
    most, lift = (float(said[name].rstrip("%")) / 100 for name in ("most", "lift"))
    for colour in PALETTE:
        full = blend(WHITE, rgb(colour), lift)
        assert contrast(ink, blend(full, ground, most)) >= 4, (
            colour
        )  # lift is in OKLab on the page: near this


def long(code):
    return code if len(code) == 7 else "#" + "".join(2 * c for c in code[1:])


def test_nothing_is_fetched_and_every_brace_is_closed():
    text = sheet()
    assert not re.search(r"url\(|@import|@font-face|https?:", text)
    assert text.count("{") == text.count("}")
    assert "prefers-color-scheme:dark" in text
