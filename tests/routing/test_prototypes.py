"""The direction that an update amplifies most, against the full SVD."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moejax.routing import prototypes
from moejax.routing.prototypes import top_direction


def drawn(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@given(st.sampled_from([(5, 4, 2), (4, 6, 1), (3, 3, 3), (2, 5, 4), (5, 2, 4)]), st.integers(0, 999))
@settings(max_examples=30, deadline=None)
def test_equals_the_first_right_singular_vector_of_the_product(sizes, seed):
    d, f, r = sizes
    a, b = drawn(seed, 2, 3, r, d), drawn(seed + 1, 2, 3, r, f)
    direction, value = top_direction(a, b)
    for at in np.ndindex(2, 3):
        product = b[at].astype(np.float64).T @ a[at]
        _, values, right = np.linalg.svd(product)
        assert float(value[at]) == pytest.approx(values[0], rel=1e-5)
        assert np.linalg.norm(direction[at]) == pytest.approx(1, abs=1e-5)
        assert np.linalg.norm(product @ direction[at]) == pytest.approx(values[0], rel=1e-5)
        if len(values) == 1 or values[1] < 0.9 * values[0]:
            assert abs(right[0] @ direction[at]) == pytest.approx(1, abs=1e-5)


def test_by_hand():
    a = jnp.array([[[2.0, 0, 0], [0, 0.5, 0]], [[0, 0, 1], [0, 1, 0]]])
    b = jnp.array([[[1.0, 0], [0, 1]], [[3, 0], [0, 1]]])
    direction, value = top_direction(a, b)
    np.testing.assert_allclose(value, [2, 3], rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.abs(direction), [[1, 0, 0], [0, 0, 1]], rtol=0, atol=1e-6)


def test_another_basis_of_the_factors_changes_nothing():
    a, b = drawn(0, 3, 2, 5), drawn(1, 3, 2, 4)
    turn = drawn(2, 3, 2, 2) + 2 * np.eye(2, dtype=np.float32)
    one, value = top_direction(a, b)
    other, again = top_direction(turn @ a, np.linalg.inv(turn).swapaxes(-1, -2) @ b)
    np.testing.assert_allclose(again, value, rtol=1e-4)
    np.testing.assert_allclose(np.abs(np.sum(one * other, axis=-1)), 1, rtol=0, atol=1e-4)


def test_padded_rank_and_half_precision_change_nothing():
    a, b = drawn(0, 3, 2, 5), drawn(1, 3, 2, 4)
    one, value = top_direction(a, b)
    more = (np.concatenate([leaf, np.zeros_like(leaf)], axis=1) for leaf in (a, b))
    other, again = top_direction(*more)
    np.testing.assert_allclose(again, value, rtol=1e-5)
    np.testing.assert_allclose(np.abs(np.sum(one * other, axis=-1)), 1, rtol=0, atol=1e-5)
    half, _ = top_direction(jnp.asarray(a, jnp.bfloat16), jnp.asarray(b, jnp.bfloat16))
    assert half.dtype == np.float32


@pytest.mark.parametrize("which", ["a", "b", "both"])
def test_an_update_of_zero_has_the_zero_direction(which):
    a, b = drawn(0, 1, 2, 5), drawn(1, 1, 2, 4)
    direction, value = top_direction(a * (which == "b"), b * (which == "a"))
    np.testing.assert_array_equal(direction, np.zeros((1, 5)))
    np.testing.assert_array_equal(value, np.zeros(1))


def test_directions_are_computed_once_for_the_same_factors_and_go_with_them(monkeypatch):
    before, calls = dict(prototypes._known), []

    def counted(a, b):
        calls.append(1)
        return top_direction(a, b)

    monkeypatch.setattr(prototypes, "top_direction", counted)
    a, b, other = (jnp.asarray(drawn(i, 2, 3, 2, 5)) for i in range(3))
    one = prototypes.directions(a, b)
    assert prototypes.directions(a, b) is one and len(calls) == 1
    np.testing.assert_array_equal(one, top_direction(a, b)[0])
    np.testing.assert_array_equal(prototypes.directions(a, other), top_direction(a, other)[0])
    np.testing.assert_array_equal(prototypes.directions(other, b), top_direction(other, b)[0])
    assert len(calls) == 3
    assert prototypes._known.keys() - before.keys() == {id(a), id(other)}
    held = {id(a), id(other)}
    del a, other
    assert not held & prototypes._known.keys()
