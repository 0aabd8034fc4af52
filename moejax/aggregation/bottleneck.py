"""Mixing routed bottleneck adapters at one place: how much each adds, never merged, for each is non-linear."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from moejax.aggregation.formulations import ROWS, down, needed, spread, up
from moejax.experts.bottleneck import activate
from moejax.experts.stacks import Bottlenecks
from moejax.types import Weights


def output(
    h: Float[Array, "b t d"], stack: Bottlenecks, slot: Int[Array, ""], weights: Weights
) -> Float[Array, "b t d"]:
    """sum_e w_e s_e (B_e act_e(A_e h + a_e) + b_e).

    weights: task `[e]`, example `[b, e]` or step `[b, t, e]`, dense or as k chosen.
    """
    at, w = needed(stack.a.shape[1], slot, weights)
    a, a_bias, b, b_bias = (leaf[at].astype(h.dtype) for leaf in stack[:4])
    scaled = (w * spread(stack.scale[at])).astype(h.dtype)
    z = down(h, a) + spread(a_bias, 1)
    z = activate(z, jnp.broadcast_to(spread(stack.act[at]), z.shape[:-1]))
    scaled = jnp.broadcast_to(scaled, z.shape[:-1])
    return up(z * scaled[..., None], b) + jnp.einsum(f"bte,{ROWS[b.ndim]}d->btd", scaled, b_bias)
