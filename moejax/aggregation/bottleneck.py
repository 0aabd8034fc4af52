"""Mixing routed bottleneck adapters at one place: how much each adds, never merged, for each is non-linear."""

from functools import partial

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from moejax.aggregation.across import across
from moejax.aggregation.reach import reach
from moejax.aggregation.rule import Formulation
from moejax.experts.bottleneck import activate
from moejax.experts.stacks import Bottlenecks
from moejax.types import Weights


def output(
    h: Float[Array, "b t d"],
    stack: Bottlenecks,
    slot: Int[Array, ""],
    weights: Weights,
    formulation: Formulation | None = None,
) -> Float[Array, "b t d"]:
    """sum_e w_e s_e (B_e act_e(A_e h + a_e) + b_e).

    weights: task `[e]`, example `[b, e]` or step `[b, t, e]`, dense or as k chosen.
    """
    return across(partial(_output, formulation), h, stack, slot, weights)


def _output(formulation, h, stack, slot, weights, total):
    way = reach(h.shape, stack.a.shape[1], slot, weights, formulation)
    z = way.down(h, stack.a) + way.take(stack.a_bias)
    z = activate(z, jnp.broadcast_to(way.take(stack.act), z.shape[:-1]))
    scaled = jnp.broadcast_to(way.w * way.take(stack.scale), z.shape[:-1]).astype(h.dtype)[..., None]
    y = way.up(z * scaled, stack.b) + way.up(scaled, stack.b_bias[:, :, None])
    return y.astype(h.dtype)
