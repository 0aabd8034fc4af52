"""Generation: prefill, then one while_loop of steps, over any pair of functions `start` and `step`.

`generate` is both in one program. `begin` and `go_on` are its halves, for a host that looks at the text in between:
where it stands is a value, and how far to go an argument, so that no part is compiled twice.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from moejax.models.decoder import Decoder, empty_cache
from moejax.models.sample import Sampling, pick
from moejax.models.stream import Cache, last
from moejax.types import Batch, PRNGKey, PyTree

Start = Callable[[PyTree, Batch], tuple[Array, Any]]
Step = Callable[[PyTree, Array, Any], tuple[Array, Any]]


class Generated(NamedTuple):
    """tokens Int[b, n], padded after the end; length Int[b]: tokens written, the end token included."""

    tokens: Int[Array, "b n"]
    length: Int[Array, "b"]


class Loop(NamedTuple):
    """Where a generation stands: how many tokens are out, the last of each row, which rows are done, and the state."""

    number: Int[Array, ""]
    token: Int[Array, "b"]
    done: Bool[Array, "b"]
    out: Generated
    state: Any


def begin(
    start: Start,
    arrays: PyTree,
    batch: Batch,
    sampling: Sampling,
    *,
    room: int,
    eos: tuple[int, ...] = (),
    pad: int = 0,
    done: Bool[Array, "b"] | None = None,
) -> Loop:
    """Prefill, and the first token. room (static): tokens that may be written; done: rows that only fill the batch."""
    logits, state = start(arrays, batch)
    zero = jnp.zeros(logits.shape[0], jnp.int32)
    out = Generated(jnp.full((logits.shape[0], room), pad, jnp.int32), zero)
    loop = Loop(jnp.int32(0), zero, zero > 0 if done is None else done, out, state)
    return _write(loop, logits, state, sampling, eos, pad)


def go_on(
    step: Step,
    arrays: PyTree,
    loop: Loop,
    sampling: Sampling,
    *,
    upto: int | Int[Array, ""],
    eos: tuple[int, ...] = (),
    pad: int = 0,
) -> Loop:
    """Steps until `upto` tokens are out or every row is done; `upto` may be traced, and is at most the room."""

    def body(loop: Loop) -> Loop:
        return _write(loop, *step(arrays, loop.token, loop.state), sampling, eos, pad)

    return jax.lax.while_loop(lambda loop: (loop.number < upto) & ~jnp.all(loop.done), body, loop)


def _write(
    loop: Loop, logits: Float[Array, "b v"], state: Any, sampling: Sampling, eos: tuple[int, ...], pad: int
) -> Loop:
    token = jnp.where(loop.done, pad, pick(logits, loop.number, sampling)).astype(jnp.int32)
    out = Generated(loop.out.tokens.at[:, loop.number].set(token), loop.out.length + ~loop.done)
    done = loop.done | jnp.isin(token, jnp.asarray(eos, jnp.int32))
    return Loop(loop.number + 1, token, done, out, state)


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
    top_p: float | Float[Array, ""] | None = None,
) -> Generated:
    """Continue each prompt by up to `max_new` tokens (static), stopping when every row has met an `eos`.

    Greedy without a `key`, else drawn from softmax(logits / temperature), of which `top_p` keeps the nucleus.
    `start(arrays, batch)` and `step(arrays, token [b], state)` give the next token's logits [b, v], and the state.
    Enter it inside jit. Raises ValueError for max_new under 1, for a temperature that is not above 0, and for a
    top_p outside (0, 1].
    """
    if max_new < 1 or (isinstance(temperature, (int, float)) and temperature <= 0):
        raise ValueError(f"max_new {max_new} must be at least 1, and temperature {temperature} above 0")
    if isinstance(top_p, (int, float)) and not 0 < top_p <= 1:
        raise ValueError(f"top_p {top_p} must be above 0 and at most 1")
    sampling = Sampling(key, temperature, top_p)
    loop = begin(start, arrays, batch, sampling, room=max_new, eos=eos, pad=pad)
    return go_on(step, arrays, loop, sampling, upto=max_new, eos=eos, pad=pad).out


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
