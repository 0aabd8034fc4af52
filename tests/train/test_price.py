"""Prices: operations counted by hand, the price in moejax.json, and what is no price."""

from dataclasses import replace

import numpy as np
import pytest
import tiny

from moejax.adapted import Adapted
from moejax.experts.pool import pool_of
from moejax.models.block import slice_layers
from moejax.train.outcomes import alone
from moejax.train.price import operations, prices, share_of
from moejax.types import UserError


def by_hand(config, t):
    """Of an encoder: q, k, v, o; scores and their mix; two linears of the MLP; each twice a product's size."""
    d, h = config.width, config.hidden
    return config.layers * 2 * (4 * t * d * d + 2 * t * t * d + 2 * t * d * h)


@pytest.mark.parametrize("t", [5, 12])
def test_operations_of_the_bare_base_are_those_of_its_matrices(t):
    base = tiny.base("encoder")
    found = operations(Adapted(base.model), base, tiny.pool(base, "ann"), t)
    assert found == by_hand(base.model.config, t)


def test_an_expert_adds_its_factors_where_every_layer_has_one():
    base, t = tiny.base("encoder"), 7
    pool = pool_of([tiny.expert(base, "ann", everywhere=False)], base.sites, base.shapes, base.layers)
    d, f = base.shapes[tiny.EVERYWHERE]
    more = operations(alone(base), base, pool, t) - by_hand(base.model.config, t)
    rank = 2
    least = base.layers * 2 * t * rank * (d + f)
    assert least <= more <= 3 * least  # the products with A and B, and what selects the expert


def test_the_whole_base_is_counted_where_only_its_upper_layers_are_given():
    base = tiny.base("encoder")
    pool = tiny.pool(base, "ann")
    top = replace(base, params=slice_layers(base.params, 1, 2))
    assert prices(top, pool, 6).tolist() == prices(base, pool, 6).tolist()


def test_said_prices_go_before_measured_ones():
    base = tiny.base("decoder")
    pool = tiny.pool(base, "ann", "bob")
    measured = prices(base, pool, 8)
    assert measured[0] == 1 < measured[1] == measured[2] < 2 and measured.shape == (4,)
    said = replace(pool, infos=(pool.infos[0] | {"price": 5}, pool.infos[1]))
    assert prices(base, said, 8).tolist() == [1, 5, measured[2], measured[3]]


@pytest.mark.parametrize("price", [0, -1.5, float("nan"), float("inf"), "cheap", True])
def test_what_is_no_price_is_refused(price):
    base = tiny.base("encoder")
    pool = tiny.pool(base, "ann")
    pool = replace(pool, infos=(pool.infos[0] | {"price": price},))
    with pytest.raises(
        UserError, match="expert 'ann': price in its moejax.json is .*; expected a number above 0"
    ):
        prices(base, pool, 8)


def test_a_mean_cost_is_a_share():
    np.testing.assert_allclose([share_of(cost, 3.0, 1.0) for cost in (1.0, 1.5, 3.0)], [0, 0.25, 1])
    assert share_of(1.5, 1.0, 2.0) == 0.5  # a strong member may be the cheaper one
    for cost, strong, weak in ((0.5, 3.0, 1.0), (3.5, 3.0, 1.0), (1.0, 1.0, 1.0)):
        with pytest.raises(UserError, match="give one between, or a share"):
            share_of(cost, strong, weak)
