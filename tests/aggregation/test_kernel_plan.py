"""The plan of blocks: every pair once, one expert a block, no more blocks than were allowed for."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moejax.aggregation import kernel_plan

planned = jax.jit(kernel_plan.plan, static_argnums=(1, 2))
SIZES = (
    (1, 1, 1, 16),
    (1, 2, 5, 16),
    (7, 1, 3, 2),
    (40, 2, 4, 8),
    (9, 3, 40, 4),
    (33, 5, 5, 16),
)  # n, k, e, m


@given(st.sampled_from(SIZES), st.integers(0, 999), st.sampled_from([1, 2, 99]))
@settings(max_examples=80, deadline=None)
def test_every_pair_has_one_place_in_a_block_of_its_expert(sizes, seed, wanted):
    (n, k, e, m), rng = sizes, np.random.default_rng(seed)
    index = rng.integers(0, min(e, wanted), size=(n, k)).astype(np.int32)  # the same expert twice is allowed
    plan = jax.tree.map(np.asarray, planned(index, e, m))
    assert kernel_plan.height(plan) == m
    used = plan.ends[-1]
    assert used == sum(-(-np.sum(index == one) // m) for one in range(e)) <= len(plan.expert)
    np.testing.assert_array_equal(plan.expert[plan.place // m], index)
    np.testing.assert_array_equal(plan.pair[plan.place], np.arange(n * k).reshape(n, k))
    assert np.sum(plan.pair < n * k) == n * k and plan.pair.max() <= n * k
    assert np.all(np.diff(plan.expert) >= 0) and np.all(plan.expert[used:] == plan.expert[used - 1])
    for one in range(e):
        np.testing.assert_array_equal(
            np.flatnonzero(plan.expert[:used] == one),
            np.arange(plan.ends[one - 1] if one else 0, plan.ends[one]),
        )


def test_pairs_of_an_expert_keep_their_order():
    plan = planned(np.array([[1], [0], [1], [0], [1]], np.int32), 2, 4)
    np.testing.assert_array_equal(plan.pair, [1, 3, 5, 5, 0, 2, 4, 5])
    np.testing.assert_array_equal(plan.ends, [1, 2])


def test_the_bound_is_reached():
    index = np.array([0, 1, 2, 2, 2, 2, 2], np.int32)[:, None]  # 1, 1 and 5 rows in blocks of 4
    plan = planned(index, 3, 4)
    assert plan.ends[-1] == len(plan.expert) == 4


def test_a_number_outside_the_pool_is_the_nearest():
    plan = planned(np.array([[-1], [7]], np.int32), 3, 2)
    np.testing.assert_array_equal(plan.expert[plan.place // 2].ravel(), [0, 2])


@pytest.mark.parametrize("backend", ["tpu", "gpu"])
def test_rows_are_a_power_of_two_near_the_pairs_of_an_expert(backend):
    found = [kernel_plan.rows(backend, pairs, 8) for pairs in (1, 8 * 16, 8 * 24, 8 * 45, 8 * 50, 8 * 10**6)]
    assert found == [16, 16, 32, 32, 64, {"tpu": 128, "gpu": 64}[backend]]
