"""The score functions: standardisation, and what leaves each of them unchanged."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moejax.routing import scores

D = 6


jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
standardise, dot, projection = map(
    jit, (scores.standardise, scores.standardised_dot, scores.absolute_projection)
)


def drawn(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def centred(x):
    """LayerNorm without affine, biased variance, in float64."""
    x = np.asarray(x, np.float64)
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def test_standardised_by_hand():
    found = standardise(jnp.array([[1.0, 2.0, 3.0, 6.0]]))
    np.testing.assert_allclose(found, [[-1.069043, -0.534522, 0, 1.603565]], rtol=0, atol=2e-6)


@given(st.integers(0, 999), st.sampled_from([1e-3, 1.0, 100.0]))
@settings(max_examples=20, deadline=None)
def test_standardised_entries_sum_to_zero_with_mean_square_below_one(seed, size):
    x = size * drawn(seed, 2, 3, D)
    found = np.asarray(standardise(x), np.float64)
    np.testing.assert_allclose(found.sum(-1), 0, atol=1e-5)
    var = x.astype(np.float64).var(-1)
    np.testing.assert_allclose((found**2).mean(-1), var / (var + 1e-5), rtol=1e-4)


@given(st.integers(0, 999))
@settings(max_examples=20, deadline=None)
def test_standardised_dot_equals_numpy_is_bounded_and_ignores_shift_and_scale(seed):
    x, gates = drawn(seed, 2, 3, D), drawn(seed + 1, 4, D)
    found = np.asarray(dot(x, gates))
    np.testing.assert_allclose(found, centred(x) @ centred(gates).T / np.sqrt(D), rtol=0, atol=1e-5)
    assert np.abs(found).max() <= np.sqrt(D) + 1e-5
    least = min(x.var(-1).min(), gates.var(-1).min())  # eps beside it is what a scale is not free of
    for same in ((x + 2, gates), (x, gates - 3), (3 * x, gates), (x, 7 * gates)):
        np.testing.assert_allclose(dot(*same), found, rtol=0, atol=1e-5 + np.sqrt(D) * 1e-5 / (2 * least))
    np.testing.assert_allclose(dot(x, -gates), -found, rtol=0, atol=1e-6)


def test_a_gate_of_zero_scores_zero():
    found = dot(drawn(0, 2, 3, D), np.zeros((2, D), np.float32))
    np.testing.assert_array_equal(found, np.zeros((2, 3, 2)))


@given(st.integers(0, 999))
@settings(max_examples=20, deadline=None)
def test_absolute_projection_is_sign_free_and_grows_with_the_input(seed):
    x, prototypes = drawn(seed, 2, 3, D), drawn(seed + 1, 4, D)
    found = np.asarray(projection(x, prototypes))
    np.testing.assert_allclose(found, np.abs(x.astype(np.float64) @ prototypes.T), rtol=0, atol=1e-5)
    signs = np.array([[1], [-1], [1], [-1]], np.float32)
    np.testing.assert_array_equal(projection(x, signs * prototypes), found)
    np.testing.assert_allclose(projection(-3 * x, prototypes), 3 * found, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("score", [dot, projection])
def test_scores_of_half_precision_are_computed_in_float32(score):
    x, gates = (jnp.asarray(drawn(seed, 3, D), jnp.bfloat16) for seed in (0, 1))
    found = score(x, gates)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(
        found, score(x.astype(jnp.float32), gates.astype(jnp.float32)), rtol=0, atol=1e-6
    )


def test_a_unit_vector_points_where_it_did_and_nothing_stays_nothing():
    x = jnp.asarray([[3.0, 4.0], [0.0, 0.0], [-2.0, 0.0]])
    np.testing.assert_allclose(scores.unit(x), [[0.6, 0.8], [0.0, 0.0], [-1.0, 0.0]], rtol=0, atol=1e-6)
    slope = jax.grad(lambda x: jnp.sum(scores.unit(x) * jnp.asarray([[1.0, 0.0]] * 3)))(x)
    np.testing.assert_allclose(slope, [[0.128, -0.096], [0.0, 0.0], [0.0, 0.0]], rtol=0, atol=1e-6)
