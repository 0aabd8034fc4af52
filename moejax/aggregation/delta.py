"""Mixing routed differences of full fine-tunes at one linear or norm: sum_e w_e tau_e, added to what the base gives.

Two orders of one sum. Merged: theta = sum_e w_e tau_e once for each request, then x theta, e d f + t d f a request;
unmerged: x tau_e of each expert, t e d f. The cheaper one is taken, by static shapes.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from moejax.aggregation.reach import ROWS, needed, spread
from moejax.aggregation.rule import FEW
from moejax.experts.stacks import Deltas
from moejax.routing import select
from moejax.types import Weights


def output(
    x: Float[Array, "b t d"], stack: Deltas, slot: Int[Array, ""], weights: Weights
) -> Float[Array, "b t f"]:
    """sum_e w_e (x W_e + bias_e).

    weights: task `[e]`, example `[b, e]` or step `[b, t, e]`, dense or as k chosen.
    """
    w, tau, bias = _read(x, stack, slot, weights)
    tokens, experts = x.shape[1], w.shape[2]
    if w.shape[1] == 1 and tokens + experts < tokens * experts:
        return merged(x, w, tau, bias)
    return unmerged(x, w, tau, bias)


def merged(
    x: Float[Array, "b t d"], w: Float[Array, "q 1 e"], tau: Float[Array, "..."], bias: Float[Array, "..."]
) -> Float[Array, "b t f"]:
    """x (sum_e w_e W_e) + sum_e w_e bias_e; one matrix for all rows where the weights are a task's."""
    rows, each = ROWS[tau.ndim], w[:, 0]
    theta = jnp.einsum(f"qe,{rows.replace('b', 'q')}df->qdf", each, tau)
    moved = jnp.einsum(f"qe,{rows.replace('b', 'q')}f->qf", each, bias)[:, None]
    if theta.shape[0] == 1:
        return jnp.einsum("btd,df->btf", x, theta[0]) + moved
    return jnp.einsum("btd,bdf->btf", x, theta) + moved


def unmerged(
    x: Float[Array, "b t d"], w: Float[Array, "q s e"], tau: Float[Array, "..."], bias: Float[Array, "..."]
) -> Float[Array, "b t f"]:
    """sum_e w_e (x W_e + bias_e), each expert's output by itself."""
    rows = ROWS[tau.ndim]
    each = jnp.einsum(f"btd,{rows}df->btef", x, tau) + spread(bias, 1)
    return jnp.sum(w[..., None] * each, axis=2)


def gain(
    normed: Float[Array, "b t d"], stack: Deltas, slot: Int[Array, ""], weights: Weights
) -> Float[Array, "b t d"]:
    """sum_e w_e (gain_e normed + bias_e), of a norm: normed has mean 0 (LayerNorm) and variance 1."""
    w, tau, bias = _read(normed, stack, slot, weights)
    return normed * jnp.sum(w[..., None] * spread(tau[..., 0, :], 1), axis=2) + jnp.sum(
        w[..., None] * spread(bias, 1), axis=2
    )


def _read(x, stack, slot, weights):
    """w s, W and bias of the experts that are needed, in the dtype of x: all, where many tokens chose their own."""
    if weights.index is not None and weights.index.ndim == 3 and weights.index.size > FEW:
        weights = Weights(select.dense(weights, stack.w.shape[1]))
    at, w = needed(slot, weights)
    return tuple(leaf.astype(x.dtype) for leaf in (w * spread(stack.scale[at]), stack.w[at], stack.bias[at]))
