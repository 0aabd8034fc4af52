"""Mixing routed LoRA experts at one linear: the functions `output` and `factor`, however they are computed.

A stack holds a site's experts for all adapted layers: a [s, e, r, d], b [s, e, r, f], scale [s, e]. It is
indexed by (slot, expert) in ONE gather, so that a scan over layers never copies a layer's whole bank.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from moejax.experts.stacks import Stack
from moejax.routing import select
from moejax.types import Weights

GATHER_AT_MOST = 32  # (token, expert) pairs up to which reading only the chosen experts beats two matmuls
ROWS = {3: "e", 4: "be", 5: "bte"}  # rank of the factors that were read: shared, by row, by token


def output(
    x: Float[Array, "b t d"], stack: Stack, slot: Int[Array, ""], weights: Weights
) -> Float[Array, "b t f"]:
    """sum_e w_e s_e (B_e A_e x + bias_e), each expert with its own scale s_e = alpha / r; few have a bias.

    weights: task `[e]`, example `[b, e]` or step `[b, t, e]`, dense or as k chosen.
    """
    a, b, scaled, _, bias = _read(stack, slot, weights, x)
    return _moved(up(down(x, a) * scaled[..., None], b), scaled, bias)


def factor(
    x: Float[Array, "b t d"], stack: Stack, slot: Int[Array, ""], weights: Weights
) -> Float[Array, "b t f"]:
    """(sum_e w_e s_e B_e) (sum_e w_e A_e) x + sum_e w_e s_e bias_e: the factors are mixed apart, with cross terms.

    Depends on each expert's factor basis (A -> M A, B -> B M^-1 changes it). Mixed in rank space: no
    [r, d] per token is built. Source: Arrow (2405.11157) and LoraHub (2307.13269) as released.
    """
    a, b, scaled, w, bias = _read(stack, slot, weights, x)
    mixed = jnp.sum(down(x, a) * w[..., None], axis=2, keepdims=True)
    return _moved(up(mixed * scaled[..., None], b), scaled, bias)


def down(x: Float[Array, "b t d"], a: Float[Array, "..."]) -> Float[Array, "b t e r"]:
    """A x of the experts that were read: [b, t, e, r]."""
    return jnp.einsum(f"btd,{ROWS[a.ndim]}rd->bter", x, a)


def up(z: Float[Array, "b t e r"], b: Float[Array, "..."]) -> Float[Array, "b t f"]:
    """sum_e B z: [b, t, f]."""
    return jnp.einsum(f"bter,{ROWS[b.ndim]}rf->btf", z, b)


def _moved(y, scaled, bias):
    """y and the biases, each times w s."""
    return y if bias is None else y + jnp.sum(scaled[..., None] * spread(bias, 1), axis=2)


def _read(stack, slot, weights, x):
    """The factors that are needed, w s and w as [b or 1, t or 1, e or k], and the biases, in the dtype of x."""
    at, w = needed(stack.a.shape[1], slot, weights)
    leaves = (stack.a[at], stack.b[at], w * spread(stack.scale[at]), w)
    bias = None if stack.bias is None else stack.bias[at].astype(x.dtype)
    return *(leaf.astype(x.dtype) for leaf in leaves), bias


def needed(experts: int, slot: Int[Array, ""], weights: Weights) -> tuple[Any, Float[Array, "b t e"]]:
    """What a stack's leaves are indexed by, in ONE gather, and the weights as [b or 1, t or 1, e or k].

    Dense: all experts, two plain matmuls, 2 n e r (d + f) FLOPs whatever k is. Else only the chosen are read:
    the same k for every row; the k of each row, at a cost flat in e; the k of each token where these are few.
    """
    w, index = spread(weights.values), weights.index
    if index is not None:
        index = spread(index)
        if index.shape[:2] == (1, 1):
            index = index[0, 0]
        elif index.shape[1] == 1:
            index = index[:, 0]
        elif index.size > GATHER_AT_MOST:
            w, index = select.dense(Weights(w, index), experts), None
    return slot if index is None else (slot, index), w


def spread(a: Shaped[Array, "..."], inner: int = 0) -> Shaped[Array, "..."]:
    """Task [e, …] and example [b, e, …] as [b or 1, t or 1, e, …]; inner: how many axes follow that of the experts."""
    rank = a.ndim - inner
    return a[None, None] if rank == 1 else a[:, None] if rank == 2 else a
