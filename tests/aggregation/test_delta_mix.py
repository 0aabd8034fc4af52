"""Differences mixed at a linear or a norm equal the sum spelled out in float64, in both orders, value and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moejax.aggregation import delta
from moejax.aggregation.reach import needed
from moejax.experts.stacks import Deltas
from moejax.types import Weights

B, T, D, F, E, S = 3, 5, 4, 6, 3, 2
SLOT = jnp.int32(1)


def stack(d=D, f=F):
    rng = np.random.default_rng(0)
    leaves = (rng.normal(size=size).astype(np.float32) for size in ((S, E, d, f), (S, E, f)))
    return Deltas(
        *map(jnp.asarray, leaves), jnp.ones((S, E)), jnp.ones((S, E), bool), jnp.arange(S, dtype=jnp.int32)
    )


def weights(grain):
    """Weights as a method gives them, and the same spelled out, [b, t, e]."""
    rng = np.random.default_rng(1)
    index = {"chosen": (B, 2), "one": (1,), "chosen step": (B, T, 2)}
    shape = {"task": (E,), "example": (B, E), "step": (B, T, E)} | index
    values = rng.normal(size=shape[grain]).astype(np.float32)
    if grain not in index:
        dense = np.broadcast_to(values.reshape((1,) * (3 - values.ndim) + values.shape) if values.ndim == 1
                                else values[:, None] if values.ndim == 2 else values, (B, T, E))  # fmt: skip
        return Weights(jnp.asarray(values)), dense
    chosen = np.argsort(rng.normal(size=(*shape[grain][:-1], E)))[..., : values.shape[-1]]
    whole = np.zeros((*shape[grain][:-1], E), np.float32)
    np.put_along_axis(whole, chosen, values, -1)
    dense = whole[None, None] if whole.ndim == 1 else whole[:, None] if whole.ndim == 2 else whole
    return Weights(jnp.asarray(values), jnp.asarray(chosen, jnp.int32)), np.broadcast_to(dense, (B, T, E))


GRAINS = ("task", "example", "step", "chosen", "one", "chosen step")


def spelled(x, s, dense):
    each = np.einsum("btd,edf->btef", np.float64(x), np.float64(s.w[1])) + np.float64(s.bias[1])
    return np.sum(np.float64(dense)[..., None] * each, axis=2)


@pytest.mark.parametrize("tokens", [1, T])
@pytest.mark.parametrize("grain", GRAINS)
def test_mixing_is_the_sum_spelled_out(grain, tokens):
    x = np.random.default_rng(2).normal(size=(B, T, D)).astype(np.float32)[:, :tokens]
    given, dense = weights(grain)
    if given.values.ndim == 3:
        given = Weights(*(None if leaf is None else leaf[:, :tokens] for leaf in given))
    found = jax.jit(delta.output)(jnp.asarray(x), stack(), SLOT, given)
    np.testing.assert_allclose(found, spelled(x, stack(), dense[:, :tokens]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("grain", ["task", "example", "chosen", "one"])
def test_both_orders_are_one_sum_and_one_gradient(grain):
    x = jnp.asarray(np.random.default_rng(3).normal(size=(B, T, D)), jnp.float32)
    (given, _), s = weights(grain), stack()

    def of(order):
        def total(values, x):
            at, w = needed(SLOT, given._replace(values=values))
            y = order(x, w * jnp.ones((1, 1, 1)), s.w[at], s.bias[at])
            return jnp.sum(jnp.sin(y)), y

        return jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True))(given.values, x)

    one, other = of(delta.merged), of(delta.unmerged)
    for ours, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


def cost(tokens):
    """What XLA counts for weights of each request."""
    x, w = jnp.zeros((B, tokens, 32)), Weights(jnp.ones((B, E)))
    s = stack(32, 48)
    return jax.jit(delta.output).lower(x, s, SLOT, w).compile().cost_analysis()["flops"]  # pyright: ignore


def test_the_cheaper_order_is_taken():
    each = 2 * B * 32 * 48  # of one product of a token with a matrix
    assert cost(1) < 1.3 * each * E  # one token: each expert's output
    assert cost(64) < 1.3 * each * (64 + E)  # many: merge, then multiply; not 64 E


@pytest.mark.parametrize("grain", GRAINS)
def test_a_norm_is_gain_and_bias(grain):
    x, s = np.random.default_rng(4).normal(size=(B, T, F)).astype(np.float32), stack(1, F)
    given, dense = weights(grain)
    found = delta.gain(jnp.asarray(x), s, SLOT, given)
    each = np.float64(x)[:, :, None] * np.float64(s.w[1, :, 0]) + np.float64(s.bias[1])
    np.testing.assert_allclose(found, np.sum(dense[..., None] * each, axis=2), rtol=0, atol=1e-5)
