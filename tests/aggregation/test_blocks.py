"""Blocks: whatever the choice, every pair is in one block, of its own expert, and no block is empty."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moejax.aggregation import blocks
from moejax.aggregation.rule import FEW, FEWEST, block_size, choose

plan = jax.jit(blocks.plan, static_argnums=(1, 2))


@given(
    st.integers(1, 30), st.integers(1, 9), st.integers(1, 3), st.sampled_from([1, 4, 8]), st.integers(0, 99)
)
@settings(max_examples=60, deadline=None)
def test_every_pair_is_in_one_block_of_its_expert(n, e, k, size, seed):
    rng = np.random.default_rng(seed)
    few = rng.permutation(e)[: rng.integers(1, e + 1)]  # the others have no token
    index = rng.choice(few, (n, k)).astype(np.int32)
    pair, start, end, expert, used = (np.asarray(leaf) for leaf in plan(jnp.asarray(index), e, size))
    assert len(start) == len(end) == len(expert) >= used > 0
    seen = []
    for g in range(used):
        mine = pair[start[g] : end[g]]
        assert 1 <= len(mine) <= size
        assert (index.reshape(-1)[mine] == expert[g]).all()
        seen += mine.tolist()
    assert sorted(seen) == list(range(n * k))
    assert (np.diff(expert[:used]) >= 0).all()
    assert used == sum(-(-count // size) for count in np.bincount(index.reshape(-1), minlength=e))
    assert (pair[n * k :] == n * k).all() and len(pair) == n * k + size


def test_pairs_whose_number_does_not_fit_beside_the_expert_are_ordered_all_the_same(monkeypatch):
    index = jnp.asarray(np.random.default_rng(0).integers(0, 1 << 20, (2100, 1)), jnp.int32)
    assert (1 << 20) * 2100 > 2**31
    found = blocks.plan(index, 1 << 20, 8)
    order = np.asarray(found.pair)[:2100]
    np.testing.assert_array_equal(order, np.argsort(np.asarray(index)[:, 0], kind="stable"))


@pytest.mark.parametrize(
    ("pairs", "experts", "expected"),
    [(1024, 256, 8), (1024, 64, 16), (1024, 32, 32), (1024, 4, 32), (22, 2, 8), (24, 2, 16)],
)
def test_a_block_has_about_the_rows_of_an_expert(pairs, experts, expected):
    assert block_size(pairs, experts) == expected


def test_the_rule_by_static_shapes():
    assert choose(512, 4, 4, "cpu") == choose(1, 4, 4, "gpu") == "dense"  # k = e
    assert choose(512, 4, 2, "cpu") == "dense"
    assert choose(512, 8, 2, "cpu") == "blocks"
    assert choose(FEWEST // 2, 256, 2, "cpu") == choose(FEW // 2, 256, 2, "tpu") == "gather"
    assert choose(FEWEST // 2 + 1, 256, 2, "cpu") == "blocks"
    assert choose(512, 256, 2, "tpu") == choose(512, 256, 2, "gpu") == "kernel"


def size_of(e):
    """Bytes that mixing takes beside its arguments and results."""
    x, a, b = jnp.zeros((512, 64)), jnp.zeros((3, e, 4, 64)), jnp.zeros((3, e, 4, 64))
    index = jnp.zeros((512, 2), jnp.int32)

    def mix(x, a, b, index, slot):
        found = blocks.plan(index, e, 8)
        return blocks.expand(blocks.shrink(x, a, slot, found, 2), b, slot, found)

    got = jax.jit(mix).lower(x, a, b, index, jnp.int32(1)).compile().memory_analysis()
    assert got is not None
    return got.temp_size_in_bytes


def test_memory_does_not_grow_with_the_pool():
    few, many = size_of(8), size_of(2048)
    assert many < few + 30_000  # the blocks' numbers; the bank has 12 MB


@pytest.mark.parametrize("size", [1, 4])
def test_a_pair_without_an_expert_here_has_no_part_in_any_sum(size):
    """Its index is e, as of experts that another device holds; what stands in x and z there is not read."""
    n, k, e, r, d, slot = 9, 2, 3, 2, 5, jnp.int32(0)
    rng = np.random.default_rng(3)
    index = rng.integers(0, e + 1, (n, k)).astype(np.int32)
    index[-1] = e
    x, z, a = (rng.normal(size=shape).astype(np.float32) for shape in ((n, d), (n, k, r), (1, e, r, d)))
    made, here = plan(jnp.asarray(index), e, size), (index < e)[..., None]
    factors = np.where(here[..., None], a[0][np.minimum(index, e - 1)], 0.0)  # [n, k, r, d]
    found = blocks.shrink(jnp.asarray(x), jnp.asarray(a), slot, made, k)
    np.testing.assert_allclose(found, np.einsum("nd,nkrd->nkr", x, factors), rtol=1e-5, atol=1e-6)
    found = blocks.expand(jnp.asarray(z), jnp.asarray(a), slot, made)
    np.testing.assert_allclose(found, np.einsum("nkr,nkrd->nd", z, factors), rtol=1e-5, atol=1e-6)
    wanted = np.zeros_like(a)
    np.add.at(wanted[0], np.minimum(index, e - 1), np.where(here, z, 0.0)[..., None] * x[:, None, None])
    found = blocks.outer(jnp.asarray(z), jnp.asarray(x), slot, made, jnp.asarray(a))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
