"""From scores to weights, against numpy: masks, ties, softmax before and after top-k."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moejax.routing import select
from moejax.types import Weights

SHAPES = ((4,), (2, 3), (2, 3, 5), (1, 2, 1))
RULES = {
    "softmax": lambda s, p, k: select.softmax(s, p),
    "top_k": select.top_k,
    "softmax_top_k": select.softmax_top_k,
}


@partial(jax.jit, static_argnames=("rule", "k"))
def weights(rule, scores, present, k):
    """What a rule gives, and the same spelled out over all experts."""
    found = RULES[rule](scores, present, k)
    return found, select.dense(found, scores.shape[-1])


def softmax(scores):
    z = np.exp(scores - scores.max())
    return z / z.sum()


def expected(rule, scores, present, k):
    """One row, in float64: the k best of those present, the lowest index first among equals."""
    w, here = np.zeros(len(scores)), np.flatnonzero(present)
    if not len(here):
        return w
    best = sorted(here, key=lambda e: -scores[e])[:k]  # sorted is stable
    if rule == "softmax":
        w[here] = softmax(scores[here])
    elif rule == "top_k":
        w[best] = softmax(scores[best])
    else:
        p = np.zeros(len(scores))
        p[here] = softmax(scores[here])
        w[best] = p[best] / (p[best].sum() + 1e-6)
    return w


@pytest.mark.parametrize("rule", RULES)
@given(
    st.sampled_from(SHAPES),
    st.sampled_from([1, 2, 6]),
    st.integers(0, 999),
    st.sampled_from([0, 0.4, 1]),
    st.booleans(),
)
@settings(max_examples=50, deadline=None)
def test_weights_equal_numpy_and_are_zero_off_the_selection(rule, shape, k, seed, absent, ties):
    rng = np.random.default_rng(seed)
    scores = (3 * rng.normal(size=shape)).astype(np.float32)
    scores = np.round(scores / 3) if ties else scores
    present = rng.random(shape[-1]) >= absent
    found, spelled = weights(rule, scores, present, k)
    for row in np.ndindex(*shape[:-1]):
        np.testing.assert_allclose(
            spelled[row], expected(rule, scores[row].astype(np.float64), present, k), rtol=0, atol=1e-6
        )
    assert found.values.dtype == jnp.float32
    assert np.all(np.asarray(spelled)[..., ~present] == 0)
    if rule != "softmax":
        assert found.index.shape == found.values.shape == (*shape[:-1], min(k, shape[-1]))
        assert np.all(np.count_nonzero(spelled, axis=-1) <= k)


@pytest.mark.parametrize("rule", RULES)
def test_permuting_experts_permutes_weights(rule):
    rng = np.random.default_rng(0)
    scores, present = rng.normal(size=(2, 3, 5)).astype(np.float32), np.array([1, 1, 0, 1, 1], bool)
    order = np.array([3, 0, 4, 2, 1])
    _, one = weights(rule, scores, present, 2)
    _, other = weights(rule, scores[..., order], present[order], 2)
    np.testing.assert_allclose(other, one[..., order], rtol=0, atol=1e-7)


def test_ties_go_to_the_lowest_index():
    for rule in ("top_k", "softmax_top_k"):
        found, _ = weights(rule, np.zeros((2, 3, 5), np.float32), np.array([0, 1, 1, 0, 1], bool), 2)
        np.testing.assert_array_equal(found.index, np.broadcast_to([1, 2], (2, 3, 2)))
        np.testing.assert_allclose(found.values, 0.5, atol=2e-6)


def test_k_of_all_equals_the_dense_softmax():
    scores, present = np.random.default_rng(1).normal(size=(2, 3, 5)).astype(np.float32), np.ones(5, bool)
    _, dense = weights("softmax", scores, present, 5)
    np.testing.assert_allclose(weights("top_k", scores, present, 5)[1], dense, rtol=0, atol=1e-7)
    np.testing.assert_allclose(weights("softmax_top_k", scores, present, 5)[1], dense, rtol=0, atol=2e-6)


@pytest.mark.parametrize("size", [1e4, 1e20])
def test_huge_scores_stay_finite(size):
    scores = size * np.random.default_rng(2).normal(size=(2, 3, 5)).astype(np.float32)
    for rule in RULES:
        assert np.isfinite(weights(rule, scores, np.array([1, 1, 0, 1, 1], bool), 2)[1]).all()


def test_gradients_are_finite_where_no_expert_is_present():
    for rule in RULES.values():
        slope = jax.grad(lambda s, rule=rule: jnp.sum(rule(s, jnp.zeros(4, bool), 2).values ** 2))(
            jnp.ones(4)
        )
        np.testing.assert_array_equal(slope, np.zeros(4))


def test_scores_of_half_precision_give_float32_weights():
    scores = jnp.asarray([[1.0, 2.0, 3.0]], jnp.bfloat16)
    for rule in RULES:
        assert weights(rule, scores, np.ones(3, bool), 2)[0].values.dtype == jnp.float32


def test_dense_adds_up_an_expert_that_is_named_twice_and_leaves_dense_weights_alone():
    twice = Weights(jnp.array([[0.25, 0.5]]), jnp.array([[1, 1]]))
    np.testing.assert_array_equal(select.dense(twice, 3), [[0, 0.75, 0]])
    np.testing.assert_array_equal(select.dense(Weights(jnp.ones(3)), 3), np.ones(3))


def test_one_hot_puts_all_weight_on_one_and_none_where_there_is_none():
    found = select.one_hot(jnp.array([2, -1, 0]))
    np.testing.assert_array_equal(select.dense(found, 3), [[0, 0, 1], [0, 0, 0], [1, 0, 0]])
