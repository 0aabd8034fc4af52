"""What flows through a base: the stream and its cache, and the context that every block is given."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from moejax.types import PyTree


class Cache(NamedTuple):
    """Keys and values of all layers, carried whole through the scan and written at (layer, 0, at).

    k, v Float[l, b, s, g, dh] with g key-value heads; valid Bool[b, s]: slots that hold real tokens;
    at Int[]: the slot that is written next.
    """

    k: Float[Array, "l b s g dh"]
    v: Float[Array, "l b s g dh"]
    valid: Bool[Array, "b s"]
    at: Int[Array, ""]


class Stream(NamedTuple):
    """What a block takes and gives back: activations `x` Float[b, t, d], and the cache if there is one."""

    x: Float[Array, "b t d"]
    cache: Cache | None = None


class Memory(NamedTuple):
    """What a seq2seq's decoder attends to, rows first: keys and values of its blocks, and the texts' real tokens.

    k, v Float[b, l, s, g, dh]; valid Bool[b, s].
    """

    k: Float[Array, "b l s g dh"]
    v: Float[Array, "b l s g dh"]
    valid: Bool[Array, "b s"]


class Context(NamedTuple):
    """What every block sees beside the stream, made once outside the scan from the mask alone.

    positions Int[b, t]; mask Bool[b, 1, t, s]: True where a query may look; at Int[]: the cache slot of
    the first token (0 without a cache); local: the mask of layers that see a window only, where others do not;
    bias Float[b, h, t, s]: what relative positions add to the logits; memory: of a seq2seq's decoder.
    """

    positions: Int[Array, "b t"]
    mask: Bool[Array, "b 1 t s"]
    at: Int[Array, ""]
    local: Bool[Array, "b 1 t s"] | None = None
    bias: Float[Array, "b h t s"] | None = None
    memory: Memory | None = None


def context(
    mask: Bool[Array, "b t"],
    causal: bool,
    window: int | None = None,
    cache: Cache | None = None,
    mixed: bool = False,
) -> Context:
    """Positions (running count of real tokens) and attention mask, for padding on either side.

    A query sees slots that hold real tokens; if `causal` none after its own, and with `window` none of
    `window` or more positions before it (`mixed`: in some layers only). With a cache, the slots are the cache's
    and `mask` is that of the new tokens, which stand at `cache.at`.
    """
    valid, at = (mask, jnp.int32(0)) if cache is None else (_marked(cache, mask), cache.at)
    rows, new, slots = mask.shape[0], mask.shape[1], valid.shape[1]
    places = jnp.maximum(jnp.cumsum(valid.astype(jnp.int32), axis=1) - 1, 0)
    positions = jax.lax.dynamic_slice(places, (0, at), (rows, new))
    seen = jnp.broadcast_to(valid[:, None, :], (rows, new, slots))
    if causal:
        seen &= (jnp.arange(slots)[None, :] <= at + jnp.arange(new)[:, None])[None]
    if window is None:
        return Context(positions, seen[:, None], at)
    near = seen & (positions[:, :, None] - places[:, None, :] < window)
    return Context(positions, (seen if mixed else near)[:, None], at, near[:, None] if mixed else None)


def _marked(cache: Cache, mask: Bool[Array, "b t"]) -> Bool[Array, "b s"]:
    return jax.lax.dynamic_update_slice(cache.valid, mask, (0, cache.at))


def advance(cache: Cache | None, mask: Bool[Array, "b t"]) -> Cache | None:
    """The cache after `mask.shape[1]` tokens were written: their slots marked, `at` moved on."""
    return None if cache is None else cache._replace(valid=_marked(cache, mask), at=cache.at + mask.shape[1])


def last(mask: Bool[Array, "b t"]) -> Int[Array, "b"]:
    """Place of each row's last real token (the end of the row where there is none)."""
    return mask.shape[1] - 1 - jnp.argmax(mask[:, ::-1], axis=1)


def tile(tree: PyTree, n: int) -> PyTree:
    """Each row n times, side by side (row i becomes rows i n .. i n + n - 1), in every leaf that has rows.

    For leaves that lead with the batch (a Context, activations, weights); scalars stay. Undone by
    `x.reshape(b, n, ...)`.
    """
    return jax.tree.map(lambda leaf: leaf if leaf.ndim == 0 or n == 1 else jnp.repeat(leaf, n, axis=0), tree)
