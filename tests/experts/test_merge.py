"""One expert made of several: the same updates at every site, of the rank that its mode has."""

import jax
import numpy as np
import pytest
import tiny
import world as worlds

from moejax.experts.expert import Expert
from moejax.experts.lora import Lora
from moejax.experts.merge import merged
from moejax.experts.pool import pool_of
from moejax.types import UserError

BASE = tiny.base("encoder")
POOL = tiny.pool(BASE, "ann", "bob", "cy", capacity=5)
WEIGHTS = np.float32([0.5, -1.0, 2.0, 9.0, 9.0])  # those of free slots count for nothing


def update(a, b):
    return np.einsum("...rd,...rf->...df", a, b)


@pytest.mark.parametrize("mode", ["output", "factor"])
def test_updates_are_those_of_the_weighted_bank(mode):
    found = merged(POOL.bank, WEIGHTS, mode, "one")
    assert found.name == "one"
    assert found.loras.keys() == {(tiny.EVERYWHERE, 0), (tiny.EVERYWHERE, 1), (tiny.ON_TOP, 1)}
    for (path, layer), one in found.loras.items():
        stack = jax.device_get(POOL.bank.sites[path])
        slot = stack.slot[layer]
        w, ws = WEIGHTS * stack.present[slot], WEIGHTS * stack.present[slot] * stack.scale[slot]
        if mode == "factor":
            wanted = update(
                np.einsum("e,erd->rd", w, stack.a[slot]), np.einsum("e,erf->rf", ws, stack.b[slot])
            )
        else:
            wanted = np.einsum("e,edf->df", ws, update(stack.a[slot], stack.b[slot]))
        np.testing.assert_allclose(one.alpha / len(one.a) * update(one.a, one.b), wanted, rtol=0, atol=1e-5)
        assert one.a.dtype == one.b.dtype == np.float32 and one.alpha == len(one.a)


def test_ranks_are_the_sum_or_the_largest_without_what_is_zero():
    ranks = {
        mode: {site: len(one.a) for site, one in merged(POOL.bank, WEIGHTS, mode, "one").loras.items()}
        for mode in ("output", "factor")
    }
    assert ranks["output"] == {(tiny.EVERYWHERE, 0): 5, (tiny.EVERYWHERE, 1): 5, (tiny.ON_TOP, 1): 3}
    assert ranks["factor"] == {(tiny.EVERYWHERE, 0): 2, (tiny.EVERYWHERE, 1): 2, (tiny.ON_TOP, 1): 2}
    alone = merged(POOL.bank, np.float32([0, 1, 0, 0, 0]), "output", "one").loras
    assert {len(one.a) for one in alone.values()} == {1}


def test_bottleneck_adapters_are_refused():
    bank = worlds.fitted("encoder", "best_single(bottleneck)").arrays["bank"]
    with pytest.raises(
        UserError, match="at 'layers/.*' are of kind bottleneck: only LoRAs can be merged into one"
    ):
        merged(bank, np.ones(len(bank.alive), np.float32), "output", "one")


def test_where_nothing_is_left_there_is_no_site():
    assert merged(POOL.bank, np.zeros(5, np.float32), "output", "one").loras == {}
    assert merged(POOL.bank, np.zeros(5, np.float32), "factor", "one").loras == {}
    only_top = Expert("top", {}, {(tiny.ON_TOP, 1): Lora(*_factors(tiny.ON_TOP), 2.0)})
    both = pool_of([only_top, tiny.expert(BASE, "ann")], BASE.sites, BASE.shapes, BASE.layers)
    assert merged(both.bank, np.float32([1, 0]), "factor", "one").loras.keys() == {(tiny.ON_TOP, 1)}


def _factors(path):
    d, f = BASE.shapes[path]
    return np.ones((1, d), np.float32), np.ones((1, f), np.float32)
