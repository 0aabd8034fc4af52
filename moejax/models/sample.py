"""Choosing the next token from its logits: the most likely one, or one drawn, from all tokens or from the nucleus."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from moejax.types import PRNGKey


class Sampling(NamedTuple):
    """How tokens are drawn: greedily without a `key`. Values are arguments: another one compiles nothing.

    temperature: above 0. top_p: above 0 and at most 1; None: all tokens.
    """

    key: PRNGKey | None = None
    temperature: float | Float[Array, ""] = 1.0
    top_p: float | Float[Array, ""] | None = None


def pick(logits: Float[Array, "b v"], count: Int[Array, ""], sampling: Sampling) -> Int[Array, "b"]:
    """The token of each row: argmax, or drawn from softmax(logits / temperature), cut to the nucleus of `top_p`.

    `count` is the number of tokens written: each place has random numbers of its own.
    """
    if sampling.key is None:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    warm = logits.astype(jnp.float32) / sampling.temperature
    if sampling.top_p is not None:
        warm = nucleus(warm, sampling.top_p)
    return jax.random.categorical(jax.random.fold_in(sampling.key, count), warm).astype(jnp.int32)


def nucleus(logits: Float[Array, "b v"], p: float | Float[Array, ""]) -> Float[Array, "b v"]:
    """Logits with -inf outside the fewest most likely tokens whose probabilities sum to `p` or more.

    A token stays when those that are more likely sum to less than p; among equals the lower id goes first.
    Source: Holtzman et al. 2020 (1904.09751), section 3.1.
    """
    order = jnp.argsort(-logits, axis=-1)
    odds = jax.nn.softmax(jnp.take_along_axis(logits, order, axis=-1), axis=-1)
    before = jnp.cumsum(odds, axis=-1) - odds
    kept = (before < p) | (jnp.arange(odds.shape[-1])[None] == 0)
    return jnp.where(jnp.take_along_axis(kept, jnp.argsort(order, axis=-1), axis=-1), logits, -jnp.inf)
