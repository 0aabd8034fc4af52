"""Bottleneck experts trained together are those trained alone, in the places and of the width that the recipe says."""

from dataclasses import replace

import numpy as np
import pytest
import tiny

from moejax.experts import bottleneck
from moejax.experts.part import rank
from moejax.train.bottlenecks import BottleneckRecipe, fresh_bottleneck, train_bottlenecks
from moejax.train.optimiser import Optimiser
from moejax.train.work import Work

RECIPE = BottleneckRecipe(reduction=8, act="gelu", batch=4, optimiser=Optimiser(2e-2, 10))


def data(base, names=("ann", "bob")):
    return {name: tiny.rows(base, 6 + 5 * i, seed=i) for i, name in enumerate(names)}


@pytest.mark.parametrize(("kind", "placement"), [("encoder", "pfeiffer"), ("decoder", "houlsby")])
def test_together_is_apart(kind, placement, tmp_path):
    base, recipe = tiny.base(kind), replace(RECIPE, placement=placement)
    rows = data(base)
    together = train_bottlenecks(base, rows, recipe, Work(tmp_path / "all"))
    for name in rows:
        alone = train_bottlenecks(base, {name: rows[name]}, recipe, Work(tmp_path / name))[name]
        assert together[name].parts.keys() == alone.parts.keys() and not alone.loras
        for site, one in alone.bottlenecks.items():
            for ours, theirs in zip(together[name].bottlenecks[site][:4], one[:4], strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
            assert rank(one) == 2 and one.act == "gelu" and one.scale == 1.0
        start = fresh_bottleneck(name, 16, list(alone.bottlenecks), recipe, 0)
        site = max(alone.bottlenecks)
        for before, after in zip(start.bottlenecks[site][:4], alone.bottlenecks[site][:4], strict=True):
            assert np.abs(after - before).max() > 1e-3  # factors and biases, all of it learns


def test_the_recipe_says_where(tmp_path):
    base = tiny.base("encoder")
    short = replace(RECIPE, optimiser=Optimiser(1e-2, 1))
    places = {
        placement: set(train_bottlenecks(base, data(base), replace(short, placement=placement),
                                         Work(tmp_path / placement), layers=(1,))["ann"].bottlenecks)
        for placement in ("pfeiffer", "houlsby")
    }  # fmt: skip
    assert places == {
        "pfeiffer": {("layers/mlp_join", 1)},
        "houlsby": {("layers/attn", 1), ("layers/mlp", 1)},
    }


def test_an_expert_is_seeded_by_its_name():
    site = ("layers/mlp_join", 1)
    drawn = [fresh_bottleneck(name, 16, [site], RECIPE, seed).bottlenecks[site].a
             for name, seed in (("ann", 0), ("ann", 0), ("bob", 0), ("ann", 1))]  # fmt: skip
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert len({one.tobytes() for one in drawn}) == 3
    assert bottleneck.norm(fresh_bottleneck("ann", 16, [site], RECIPE, 0).bottlenecks[site]) < 0.05
