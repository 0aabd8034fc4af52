"""Experts merged before they are used: once for a task, or for each example, whose weights all tokens share."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from moejax.aggregation.across import Total
from moejax.aggregation.reach import needed
from moejax.experts.stacks import Stack
from moejax.types import Weights


def pays(shape: tuple[int, ...], stack: Stack, weights: Weights) -> bool:
    """Whether one [d, f] update for the task is less work than a pass of all tokens through every expert's rank.

    e r d f + n d f < n e r (d + f), of the e that are worn.
    """
    if weights.values.ndim > 1:
        return False
    (r, d), f = stack.a.shape[2:], stack.b.shape[3]
    n, rank = shape[0] * shape[1], weights.values.shape[0] * r
    return rank * d * f + n * d * f < n * rank * (d + f)


def output(
    x: Float[Array, "b t d"], stack: Stack, slot: Int[Array, ""], weights: Weights
) -> Float[Array, "b t f"]:
    """x (sum_e w_e s_e A_e^T B_e), of task weights."""
    at, w = needed(slot, weights)
    scaled = (w[0, 0] * stack.scale[at]).astype(x.dtype)
    a, b = stack.a[at].astype(x.dtype), stack.b[at].astype(x.dtype)
    update = jnp.einsum("erd,erf->df", a * scaled[:, None, None], b)
    return jnp.einsum("btd,df->btf", x, update)


def factor(
    x: Float[Array, "b t d"], stack: Stack, slot: Int[Array, ""], weights: Weights, total: Total
) -> Float[Array, "b t f"]:
    """x (sum_e w_e A_e)^T (sum_e w_e s_e B_e), of task or example weights; `total` sums over all devices' experts."""
    at, w = needed(slot, weights)
    own = "be" if weights.index is not None and weights.index.ndim == 2 else "e"
    w = w[:, 0]
    scaled = w * (stack.scale[at] if own == "be" else stack.scale[at][None])
    a = jnp.einsum(f"be,{own}rd->brd", w.astype(x.dtype), stack.a[at].astype(x.dtype))
    b = jnp.einsum(f"be,{own}rf->brf", scaled.astype(x.dtype), stack.b[at].astype(x.dtype))
    if w.shape[0] == 1:
        return jnp.einsum("btr,rf->btf", total(jnp.einsum("btd,rd->btr", x, a[0])), b[0])
    return jnp.einsum("btr,brf->btf", total(jnp.einsum("btd,brd->btr", x, a)), b)
