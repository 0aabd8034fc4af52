"""Mixing routed LoRA experts at one linear: the functions `output` and `factor`, however they are computed.

A stack holds a site's experts for all adapted layers: a [s, e, r, d], b [s, e, r, f], scale [s, e]. It is
indexed by (slot, expert) in ONE gather, so that a scan over layers never copies a layer's whole bank.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from moejax.experts.bank import Stack
from moejax.routing import select
from moejax.types import Weights

GATHER_AT_MOST = 32  # (token, expert) pairs up to which reading only the chosen experts beats two matmuls


def output(
    x: Float[Array, "b t d"], stack: Stack, slot: Int[Array, ""], weights: Weights
) -> Float[Array, "b t f"]:
    """sum_e w_e s_e B_e A_e x, each expert with its own scale s_e = alpha / r.

    weights: task `[e]`, example `[b, e]` or step `[b, t, e]`, dense or as k chosen.
    """
    if weights.index is not None and weights.index.ndim == 1:
        return _chosen(x, stack, slot, weights)
    weights = _batched(weights)
    if weights.index is None:
        return _dense(x, stack, slot, weights.values)
    if weights.index.shape[1] == 1:
        return _per_example(x, stack, slot, weights)
    if weights.index.size <= GATHER_AT_MOST:
        return _gather(x, stack, slot, weights)
    return _dense(x, stack, slot, select.dense(weights, stack.a.shape[1]))


def factor(
    x: Float[Array, "b t d"], stack: Stack, slot: Int[Array, ""], weights: Weights
) -> Float[Array, "b t f"]:
    """(sum_e w_e s_e B_e) (sum_e w_e A_e) x: the factors are mixed apart, so there are cross terms B_e A_j.

    Depends on each expert's factor basis (A -> M A, B -> B M^-1 changes it). Mixed in rank space: no [r, d] per
    token is built. Source: Arrow (2405.11157) and LoraHub (2307.13269) as released.
    """
    w = select.dense(_batched(weights), stack.a.shape[1])
    z = jnp.einsum("btd,erd->bter", x, stack.a[slot].astype(x.dtype))
    mixed = jnp.einsum("bter,bte->btr", z, jnp.broadcast_to(w, z.shape[:3]).astype(x.dtype))
    scaled = (w * stack.scale[slot][None, None]).astype(x.dtype)
    return jnp.einsum("bter,erf->btf", mixed[:, :, None] * scaled[..., None], stack.b[slot].astype(x.dtype))


def _batched(weights: Weights) -> Weights:
    """Bring task [e] and example [b, e] weights to [b or 1, t or 1, e]."""

    def rank3(a):
        return a[None, None] if a.ndim == 1 else a[:, None] if a.ndim == 2 else a

    return Weights(rank3(weights.values), None if weights.index is None else rank3(weights.index))


def _dense(x, stack, slot, w):
    """All experts at once through the rank: two plain matmuls, 2 n e r (d + f) FLOPs whatever k is."""
    z = jnp.einsum("btd,erd->bter", x, stack.a[slot].astype(x.dtype))
    w = (w * stack.scale[slot][None, None]).astype(x.dtype)
    return jnp.einsum("bter,erf->btf", z * w[..., None], stack.b[slot].astype(x.dtype))


def _chosen(x, stack, slot, weights):
    """The same k experts for every row (task weights): only they are read."""
    few = Stack(*(leaf[:, weights.index] for leaf in stack[:4]), slot=stack.slot)
    return _dense(x, few, slot, weights.values[None, None])


def _per_example(x, stack, slot, weights):
    """The k experts of each example side by side in the rank: cost follows k, flat in e."""
    index, w = weights.index[:, 0], weights.values[:, 0]
    index, w = (jnp.broadcast_to(a, (x.shape[0], a.shape[-1])) for a in (index, w))
    a, b = stack.a[slot, index].astype(x.dtype), stack.b[slot, index].astype(x.dtype)
    w = (w * stack.scale[slot, index]).astype(x.dtype)
    z = jnp.einsum("btd,bkrd->btkr", x, a)
    return jnp.einsum("btkr,bkrf->btf", z * w[:, None, :, None], b)


def _gather(x, stack, slot, weights):
    """The k experts of each token, read by (slot, expert) in one gather: for decoding, flat in e."""
    index = jnp.broadcast_to(weights.index, (*x.shape[:2], weights.index.shape[-1]))
    a, b = stack.a[slot, index].astype(x.dtype), stack.b[slot, index].astype(x.dtype)
    w = (weights.values * stack.scale[slot, index]).astype(x.dtype)
    z = jnp.einsum("btd,btkrd->btkr", x, a)
    return jnp.einsum("btkr,btkrf->btf", z * w[..., None], b)
