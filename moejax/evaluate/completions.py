"""Answers in words: prompts in, texts out, by batches of few shapes; stop strings, and who gets to see the text.

A batch is one program: prefill and a loop of steps. Where stop strings are watched for, or somebody reads along, the
host looks at the text every `chunk` tokens, and the loop goes on from where it stood.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from moejax.adapted import Adapted, start, step
from moejax.fetch import fetch
from moejax.models.base import Base
from moejax.models.generate import Loop, begin, go_on
from moejax.models.prompts import NARROWEST, bucket, ends, left_padded, longest, tokenizer_of
from moejax.models.sample import Sampling
from moejax.paged import for_batch
from moejax.types import Batch, PyTree, UserError


@dataclass(frozen=True)
class Settings:
    """temperature 0: the most likely token, else drawn from `seed` and the nucleus of `top_p`.

    max_new: most tokens of an answer. stop: texts before which it ends. batch: prompts at once. chunk: tokens between
    two looks at the text.
    """

    max_new: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0
    batch: int = 8
    chunk: int = 16


class Completion(NamedTuple):
    """tokens: the fewest whose text holds the end, an end token among them; `text` is cut before a stop string."""

    text: str
    tokens: tuple[int, ...]
    ended: Literal["end", "stop", "length"]


Say = Callable[[int, str, bool], None]
"""(number of the prompt, its answer so far, whether that is all)."""


@partial(jax.jit, static_argnames=("adapted", "room", "eos"))
def _first(
    arrays: PyTree, batch: Batch, sampling: Sampling, done: Bool[Array, "b"], upto: Int[Array, ""],
    *, adapted: Adapted, room: int, eos: tuple[int, ...],
) -> Loop:  # fmt: skip
    loop = begin(partial(start, adapted, room=room), arrays, batch, sampling, room=room, eos=eos, done=done)
    return go_on(partial(step, adapted), arrays, loop, sampling, upto=upto, eos=eos)


@partial(jax.jit, static_argnames=("adapted", "eos"), donate_argnames="loop")
def _more(
    arrays: PyTree, loop: Loop, sampling: Sampling, upto: Int[Array, ""], *, adapted: Adapted, eos: tuple[int, ...]
) -> Loop:  # fmt: skip
    return go_on(partial(step, adapted), arrays, loop, sampling, upto=upto, eos=eos)


def complete(
    base: Base,
    adapted: Adapted,
    arrays: PyTree,
    prompts: Sequence[Sequence[int]],
    settings: Settings,
    query: Float[np.ndarray, "n q"] | None = None,
    say: Say | None = None,
) -> list[Completion]:
    """The answer to each prompt of token ids, in their order; longer ones go together.

    query: sentence vectors of the prompts, for methods that look at them. Raises UserError as `check` does.
    """
    check(base, prompts, settings)
    stops, eos = _ends(base, settings)
    found: dict[int, Completion] = {}
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for at in range(0, len(order), settings.batch):
        numbers = order[at : at + settings.batch]
        count = bucket(len(numbers))
        batch = left_padded([prompts[i] for i in numbers], count)
        if query is not None:
            filled = [numbers[i] if i < len(numbers) else numbers[0] for i in range(count)]
            batch = batch._replace(query=query[filled])
        rows = [_Row(tokenizer_of(base), stops, eos) for _ in numbers]
        chunk = settings.chunk if stops or say else settings.max_new
        for ended in _chunks(adapted, for_batch(arrays, batch), batch, settings, chunk, eos, at, rows):
            if say:
                for number, row in zip(numbers, rows, strict=True):
                    say(number, row.text, ended or row.done)
        found |= {i: row.completion() for i, row in zip(numbers, rows, strict=True)}
    return [found[i] for i in range(len(prompts))]


def check(base: Base, prompts: Sequence[Sequence[int]], settings: Settings) -> None:
    """Raise UserError for an encoder, for settings out of range, and where prompt and answer have no positions."""
    if base.kind == "encoder":
        raise UserError(f"{base.folder or 'the base'} is an encoder, which writes no text: give a decoder")
    for name, good, expected in (
        ("max_new", settings.max_new >= 1, "1 or more"),
        ("temperature", settings.temperature >= 0, "0 or more"),
        ("top_p", 0 < settings.top_p <= 1, "above 0 and at most 1"),
        ("batch", settings.batch >= 1, "1 or more"),
        ("stop", all(settings.stop), "texts of one letter or more"),
    ):
        if not good:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(settings, name)!r}: expected {expected}")
    most, long = longest(base), max(map(len, prompts), default=0)
    if most is not None and long + settings.max_new > most:
        raise UserError(
            f"a prompt has {long} tokens, and --max-new {settings.max_new} more would pass the {most} positions of "
            "the base: shorten one of them"
        )


def _ends(base: Base, settings: Settings) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The stop strings, and the ids that end an answer; the text of a special token is its id, which no text shows."""
    added = tokenizer_of(base).get_added_vocab()
    stops = tuple(dict.fromkeys(one for one in settings.stop if one not in added))
    return stops, tuple(sorted({*ends(base), *(added[one] for one in settings.stop if one in added)}))


def _chunks(
    adapted: Adapted, arrays: PyTree, batch: Batch, settings: Settings, chunk: int, eos: tuple[int, ...],
    number: int, rows: Sequence["_Row"],
) -> Iterator[bool]:  # fmt: skip
    """Run the batch, and let each row look at its new tokens; yields after each look whether it was the last."""
    greedy = settings.temperature == 0
    sampling = Sampling() if greedy else Sampling(
        jax.random.fold_in(jax.random.key(settings.seed), number), jnp.float32(settings.temperature),
        None if settings.top_p == 1 else jnp.float32(settings.top_p),
    )  # fmt: skip
    done, upto = np.arange(len(batch.tokens)) >= len(rows), min(chunk, settings.max_new)
    room = bucket(settings.max_new, NARROWEST)
    loop = _first(arrays, batch, sampling, done, np.int32(upto), adapted=adapted, room=room, eos=eos)
    while True:
        (tokens, length), ended = fetch((loop.out, loop.done))
        for row, line, size in zip(rows, tokens, length, strict=False):
            row.look(line[:size].tolist())
        done = ended | np.array([row.done for row in rows] + [True] * (len(ended) - len(rows)))
        last = bool(done.all()) or upto >= settings.max_new
        yield last
        if last:
            return
        upto = min(upto + chunk, settings.max_new)
        loop = loop._replace(done=jnp.asarray(done))
        loop = _more(arrays, loop, sampling, np.int32(upto), adapted=adapted, eos=eos)


class _Row:
    """One answer as it grows: its text, and the first token at which the text holds a stop string."""

    def __init__(self, tokenizer: Any, stops: tuple[str, ...], eos: tuple[int, ...]):
        self.tokenizer, self.stops, self.eos = tokenizer, stops, eos
        self.tokens: list[int] = []
        self.text, self.stopped = "", False

    @property
    def done(self) -> bool:
        """Whether it has ended before its length did."""
        return self.stopped or (bool(self.tokens) and self.tokens[-1] in self.eos)

    def look(self, tokens: list[int]) -> None:
        """Take the tokens so far, up to the first of them after which the text holds a stop string."""
        if self.stopped:
            return
        for n in range(len(self.tokens) + 1, len(tokens) + 1) if self.stops else (len(tokens),):
            self.tokens, self.text = tokens[:n], self.tokenizer.decode(tokens[:n], skip_special_tokens=True)
            places = [self.text.find(stop) for stop in self.stops if stop in self.text]
            if places:
                self.text, self.stopped = self.text[: min(places)], True
                return

    def completion(self) -> Completion:
        """What it came to."""
        ended = "stop" if self.stopped else "end" if self.done else "length"
        return Completion(self.text, tuple(self.tokens), ended)
