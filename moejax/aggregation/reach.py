"""How the experts of a site are reached: two products through the rank, for whatever weights and formulation."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from moejax.aggregation import blocks
from moejax.aggregation.rule import Formulation, block_size, choose
from moejax.routing import select
from moejax.types import Weights

Product = Callable[[Array, Array], Array]
ROWS = {3: "e", 4: "be", 5: "bte"}  # rank of the factors that were read: shared, by row, by token


class Way(NamedTuple):
    """Of j experts, all of them or those that were chosen: what is worn of each, and how to pass through them.

    w        [b or 1, t or 1, j]
    take     leaf [s, e, …] -> [b or 1, t or 1, j, …]
    down     x [b, t, d], a [s, e, r, d] -> [b, t, j, r], each expert's A x
    up       z [b, t, j, r], b [s, e, r, f] -> [b, t, f], the sum of each expert's B^T z
    """

    w: Float[Array, "b t j"]
    take: Callable[[Array], Array]
    down: Callable[[Array, Array], Array]
    up: Callable[[Array, Array], Array]


def reach(
    shape: tuple[int, ...],
    experts: int,
    slot: Int[Array, ""],
    weights: Weights,
    formulation: Formulation | None = None,
) -> Way:
    """The way to the experts of an x of this shape, [b, t, d]; `formulation` counts where each token has its own k."""
    index, tokens = weights.index, shape[0] * shape[1]
    if index is None or index.ndim < 3:
        return _read(*needed(slot, weights))
    how = formulation or choose(tokens, experts, index.shape[-1], jax.default_backend())
    if how == "dense":
        return _read(slot, select.dense(weights, experts))
    if how == "gather":
        return _read(*needed(slot, weights))
    products = _by_blocks if how == "blocks" else _by_kernel
    shrink, expand = products(index.reshape(tokens, -1), experts, slot)
    return _ordered(index, slot, weights.values, shrink, expand)


def _read(at: Any, w: Float[Array, "b t j"]) -> Way:
    """The factors are read once, and two matmuls pass through all of them."""

    def down(x: Array, a: Array) -> Array:
        some = a[at].astype(x.dtype)
        return jnp.einsum(f"btd,{ROWS[some.ndim]}rd->bter", x, some)

    def up(z: Array, b: Array) -> Array:
        some = b[at].astype(z.dtype)
        return jnp.einsum(f"bter,{ROWS[some.ndim]}rf->btf", z, some)

    return Way(w, lambda leaf: spread(leaf[at], leaf.ndim - 2), down, up)


def _ordered(
    index: Int[Array, "b t k"],
    slot: Int[Array, ""],
    w: Float[Array, "b t k"],
    shrink: Product,
    expand: Product,
) -> Way:
    """The tokens are ordered by expert, and small matmuls pass through one expert each."""
    rows, tokens, k = index.shape

    def down(x: Array, a: Array) -> Array:
        return shrink(x.reshape(rows * tokens, -1), a).reshape(rows, tokens, k, -1)

    def up(z: Array, b: Array) -> Array:
        return expand(z.reshape(rows * tokens, k, -1), b).reshape(rows, tokens, -1)

    return Way(w, lambda leaf: leaf[slot, index], down, up)


def _by_blocks(index: Int[Array, "n k"], experts: int, slot: Int[Array, ""]) -> tuple[Product, Product]:
    plan = blocks.plan(index, experts, block_size(index.size, experts))
    return (
        lambda x, a: blocks.shrink(x, a, slot, plan, index.shape[1]),
        lambda z, b: blocks.expand(z, b, slot, plan),
    )


def _by_kernel(index: Int[Array, "n k"], experts: int, slot: Int[Array, ""]) -> tuple[Product, Product]:
    """On a CPU the TPU's kernel is interpreted, which is slow: for study."""
    from moejax.aggregation import kernel, kernel_plan  # half a second to import

    here = jax.default_backend()
    on: dict[str, Any] = {"backend": here if here in kernel.BACKENDS else "tpu"}
    on["interpret"] = here not in kernel.BACKENDS
    plan = kernel_plan.plan(index, experts, kernel_plan.rows(on["backend"], index.size, experts))
    return (
        lambda x, a: kernel.shrink(x, a, slot, plan, **on),
        lambda z, b: kernel.expand(z, b, slot, plan, jnp.dtype(jnp.float32), **on),
    )


def needed(slot: Int[Array, ""], weights: Weights) -> tuple[Any, Float[Array, "b t j"]]:
    """What a stack's leaves are indexed by, in ONE gather, and the weights as [b or 1, t or 1, j].

    All experts of dense weights; else the k of the request, of each row or of each token.
    """
    w, index = spread(weights.values), weights.index
    return slot if index is None else (slot, index), w


def spread(a: Shaped[Array, "..."], inner: int = 0) -> Shaped[Array, "..."]:
    """Task [e, …] and example [b, e, …] as [b or 1, t or 1, e, …]; inner: how many axes follow that of the experts."""
    rank = a.ndim - inner
    return a[None, None] if rank == 1 else a[:, None] if rank == 2 else a
