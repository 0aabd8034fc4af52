"""Generation: prefill, then one while_loop of steps, over any pair of functions `start` and `step`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from moejax.models.decoder import Decoder, empty_cache
from moejax.models.stream import Cache, last
from moejax.types import Batch, PRNGKey, PyTree

Start = Callable[[PyTree, Batch], tuple[Array, Any]]
Step = Callable[[PyTree, Array, Any], tuple[Array, Any]]


class Generated(NamedTuple):
    """tokens Int[b, n], padded after the end; length Int[b]: tokens written, the end token included."""

    tokens: Int[Array, "b n"]
    length: Int[Array, "b"]


class _Loop(NamedTuple):
    number: Int[Array, ""]
    token: Int[Array, "b"]
    done: Bool[Array, "b"]
    out: Generated
    state: Any


def generate(
    start: Start,
    step: Step,
    arrays: PyTree,
    batch: Batch,
    *,
    max_new: int,
    eos: tuple[int, ...] = (),
    pad: int = 0,
    key: PRNGKey | None = None,
    temperature: float | Float[Array, ""] = 1.0,
) -> Generated:
    """Continue each prompt by up to `max_new` tokens (static), stopping when every row has met an `eos`.

    Greedy without a `key`, else drawn from softmax(logits / temperature). `start(arrays, batch)` and
    `step(arrays, token [b], state)` give the next token's logits [b, v], and the state. Enter it inside jit.
    Raises ValueError for max_new under 1 and for a temperature that is not above 0.
    """
    if max_new < 1 or (isinstance(temperature, (int, float)) and temperature <= 0):
        raise ValueError(f"max_new {max_new} must be at least 1, and temperature {temperature} above 0")

    def pick(logits, count):
        if key is None:
            return jnp.argmax(logits, axis=-1)
        warm = logits.astype(jnp.float32) / temperature
        return jax.random.categorical(jax.random.fold_in(key, count), warm)

    def write(loop: _Loop, logits, state) -> _Loop:
        token = jnp.where(loop.done, pad, pick(logits, loop.number)).astype(jnp.int32)
        out = Generated(loop.out.tokens.at[:, loop.number].set(token), loop.out.length + ~loop.done)
        done = loop.done | jnp.isin(token, jnp.asarray(eos, jnp.int32))
        return _Loop(loop.number + 1, token, done, out, state)

    def body(loop: _Loop) -> _Loop:
        return write(loop, *step(arrays, loop.token, loop.state))

    logits, state = start(arrays, batch)
    zero = jnp.zeros(logits.shape[0], jnp.int32)
    out = Generated(jnp.full((logits.shape[0], max_new), pad, jnp.int32), zero)
    first = write(_Loop(jnp.int32(0), zero, zero > 0, out, state), logits, state)
    return jax.lax.while_loop(lambda loop: (loop.number < max_new) & ~jnp.all(loop.done), body, first).out


def bare(model: Decoder, max_new: int) -> tuple[Start, Step]:
    """`start` and `step` of a decoder alone: `arrays` its parameters, the state its cache; any padding."""

    def run(params: PyTree, *args: Any, **kwargs: Any) -> Any:
        return model.apply({"params": params}, *args, **kwargs)

    def start(params: PyTree, batch: Batch) -> tuple[Float[Array, "b v"], Cache]:
        rows, tokens = batch.tokens.shape
        cache = empty_cache(model.config, rows, tokens + max_new)
        hidden, cache = run(params, batch.tokens, batch.mask, cache)
        end = jnp.take_along_axis(hidden, last(batch.mask)[:, None, None], axis=1)[:, 0]
        return run(params, end, method="head"), cache

    def step(params: PyTree, token: Int[Array, "b"], cache: Cache) -> tuple[Float[Array, "b v"], Cache]:
        seen = jnp.ones((token.shape[0], 1), bool)
        hidden, cache = run(params, token[:, None], seen, cache)
        return run(params, hidden[:, 0], method="head"), cache

    return start, step
