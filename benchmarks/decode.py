"""Part 1, decoding: one token with its scores, in a call of its own, and in a loop within one program.

A text is written in the second way; in the first a good part of the time is the call's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
from jaxtyping import Array, Float

from benchmarks import layer, limits
from benchmarks.cases import Size, draw
from benchmarks.layer import SCORED, Given, Way
from benchmarks.machine import Rates
from benchmarks.measure import EFFORT, Call, Effort, Entry, measure

TOKENS = 64  # of a loop
LOOP, ONE = f"a loop of {TOKENS}", "one call"
MIX = 1e-3  # how much of a token's output is in the next one's input: each waits for the one before
POINTS = (
    *(Size(1, 1024, e) for e in (8, 32, 128, 256)),
    *(Size(1, d, e) for d in (384, 4096) for e in (8, 256)),
)


@partial(jax.jit, static_argnames=("way", "k"))
def loop(some: Given, tokens: Float[Array, "n d"], *, way: Way | None, k: int) -> Float[Array, "n f"]:
    """The layer on one token after the other, each with some of the last output in it."""

    def step(last, token):
        x = token[None, None] + MIX * last
        y = layer.routed(some._replace(x=x), way, k)
        return y, y[0, 0]

    return jax.lax.scan(step, some.x * 0, tokens)[1]


def entries(size: Size, peers: bool) -> list[Entry]:
    """Bare and routed, both ways; peft's Arrow by its calls."""
    case, many = draw(size), draw(replace(size, n=TOKENS, e=size.k))
    some, tokens = layer.given(case), jax.numpy.asarray(many.x)

    def looped(way: Way | None) -> Call:
        return lambda: jax.block_until_ready(loop(some, tokens, way=way, k=size.k))

    found = []
    for how, make, steps in ((ONE, partial(layer.call, some, size=size), 1), (LOOP, looped, TOKENS)):
        bare = f"bare, jax, {how}"
        found += [
            Entry(bare, partial(make, way=None), bare, "bare", steps=steps),
            Entry(f"{SCORED.name}, {how}", partial(make, way=SCORED), bare, steps=steps),
        ]
    if peers:
        from benchmarks import peers_layer

        theirs = peers_layer.entries(case, only=["peft, Arrow"])
        for one in theirs:
            rival, beside = (name and f"{name}, {ONE}" for name in (one.rival, one.beside))
            found.append(one._replace(rival=rival, beside=beside))
    return found


def part(
    rates: Rates, effort: Effort = EFFORT, peers: bool = True, points: Sequence[Size] = POINTS
) -> Iterator[dict[str, Any]]:
    """All points; `limit` is the ratio that bytes alone give."""
    for size in points:
        about = {"title": f"{size}, one token, scored", "size": vars(size), "limit": limits.decode(size)}
        yield about | {"rows": measure(entries(size, peers), effort)}
