"""Mixing routed LoRA experts at one linear: the functions `output` and `factor`, however they are computed.

A stack holds a site's experts for all adapted layers: a [s, e, r, d], b [s, e, r, f], scale [s, e]. It is
indexed by (slot, expert) in ONE gather or slice, so that a scan over layers never copies a layer's whole bank.
"""

from functools import partial

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from moejax.aggregation import merged
from moejax.aggregation.across import across
from moejax.aggregation.reach import Way, reach
from moejax.aggregation.rule import Formulation
from moejax.experts.stacks import Stack
from moejax.types import Weights


def output(
    x: Float[Array, "b t d"],
    stack: Stack,
    slot: Int[Array, ""],
    weights: Weights,
    formulation: Formulation | None = None,
) -> Float[Array, "b t f"]:
    """sum_e w_e s_e (B_e A_e x + bias_e), each expert with its own scale s_e = alpha / r; few have a bias.

    weights: task `[e]`, example `[b, e]` or step `[b, t, e]`, dense or as k chosen.
    formulation: how each token's k experts are reached; None: the quickest way, by static shapes.
    """
    return across(partial(_output, formulation), x, stack, slot, weights)


def _output(formulation, x, stack, slot, weights, total):
    way = reach(x.shape, stack.a.shape[1], slot, weights, formulation)
    scaled = (way.w * way.take(stack.scale)).astype(x.dtype)
    if merged.pays(x.shape, stack, weights):
        y = merged.output(x, stack, slot, weights)
    else:
        y = way.up(way.down(x, stack.a) * scaled[..., None], stack.b)
    return _moved(y, scaled, way, stack).astype(x.dtype)


def factor(
    x: Float[Array, "b t d"],
    stack: Stack,
    slot: Int[Array, ""],
    weights: Weights,
    formulation: Formulation | None = None,
) -> Float[Array, "b t f"]:
    """(sum_e w_e s_e B_e) (sum_e w_e A_e) x + sum_e w_e s_e bias_e: the factors are mixed apart, with cross terms.

    Depends on each expert's factor basis (A -> M A, B -> B M^-1 changes it). Of step weights mixed in rank space: no
    [r, d] per token is built. Source: Arrow (2405.11157) and LoraHub (2307.13269) as released.
    """
    return across(partial(_factor, formulation), x, stack, slot, weights)


def _factor(formulation, x, stack, slot, weights, total):
    way = reach(x.shape, stack.a.shape[1], slot, weights, formulation)
    scaled = (way.w * way.take(stack.scale)).astype(x.dtype)
    if weights.values.ndim < 3:
        y = merged.factor(x, stack, slot, weights, total)
    else:
        mixed = jnp.sum(way.down(x, stack.a) * way.w.astype(x.dtype)[..., None], axis=2, keepdims=True)
        y = way.up(total(mixed) * scaled[..., None], stack.b)
    return _moved(y, scaled, way, stack).astype(x.dtype)


def _moved(y: Array, scaled: Array, way: Way, stack: Stack) -> Array:
    """y and the biases, each times w s: an update of rank one, whose A x is 1."""
    if stack.bias is None:
        return y
    one = jnp.broadcast_to(scaled, (*y.shape[:2], scaled.shape[2]))
    return y + way.up(one[..., None], stack.bias[:, :, None])
