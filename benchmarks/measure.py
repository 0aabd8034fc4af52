"""Times of several calls side by side: rounds in shuffled order, each call divided by its bare call of the same round.

A call is repeated within a round until it has run long enough for the clocks. Both are read: the wall's, and that of
the processor, which counts the time of all threads.
"""

import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

CLOCKS = ("wall", "cpu")
SETTLE = 0.05  # seconds; a shorter call runs once unmeasured first, so that the threads of the one before are at rest
Call = Callable[[], Any]  # has done its work when it returns
Row = dict[str, Any]


@dataclass(frozen=True)
class Effort:
    """How much is done at a point.

    seconds: of measured calls, shared by all of them. least, most: rounds; few: of a peer slower than `slow` seconds.
    span: seconds that a call is repeated for within a round. memory, limit: bytes, and seconds of a call's rounds,
    above which it does not fit.
    """

    seconds: float = 3.0
    least: int = 11
    most: int = 60
    few: int = 3
    slow: float = 0.25
    span: float = 0.004
    memory: float = 4e9
    limit: float = 60.0


EFFORT = Effort()


class Entry(NamedTuple):
    """One of the calls at a point: `make` sets it up, and is asked for it only where it fits.

    bare: the entry that it is divided by. rival: of a peer, our entry that computes the same function; empty: none.
    beside: of a peer, ours that it is printed beside though it computes something else. need: bytes of the largest
    things that a call makes. steps: how often a call does what it stands for.
    """

    name: str
    make: Callable[[], Call]
    bare: str
    kind: str = "ours"
    rival: str = ""
    beside: str = ""
    need: float = 0.0
    steps: int = 1


class Ready(NamedTuple):
    """A call, how often it is repeated in a round, the seconds that one takes, and in how many rounds at least."""

    call: Call
    repeats: int
    seconds: float
    least: int


def measure(entries: Sequence[Entry], effort: Effort = EFFORT, seed: int = 0) -> list[Row]:
    """A row for each entry: milliseconds, and ratios with their quartiles, on both clocks; or why it does not fit."""
    ready: dict[str, Ready] = {}
    notes: dict[str, str] = {}
    for entry in entries:
        found = _ready(entry, effort)
        if isinstance(found, str):
            notes[entry.name] = found
        else:
            ready[entry.name] = found
    bare = {entry.bare for entry in entries}
    samples = rounds(ready, _taken(ready, bare, effort), seed)
    for entry in entries:
        if entry.name in samples:
            samples[entry.name] /= entry.steps
    return [_row(entry, samples, notes.get(entry.name, "")) for entry in entries]


def _ready(entry: Entry, effort: Effort) -> Ready | str:
    if entry.need > effort.memory:
        return f"does not fit: {entry.need / 1e9:.1f} GB"
    call = entry.make()
    seconds = timed(call, 1)[0]
    if entry.kind != "peer" or seconds < effort.slow:  # the first compiles, or fills caches
        seconds = timed(call, 1)[0]
    if seconds < SETTLE:  # the first may have been held up by others
        seconds = min(timed(call, 3)[0], seconds)
    if seconds * effort.few > effort.limit:
        return f"does not fit: {effort.few} calls of {seconds:.0f} s"
    least = effort.few if entry.kind == "peer" and seconds > effort.slow else effort.least
    return Ready(call, max(1, math.ceil(effort.span / max(seconds, 1e-7))), seconds, least)


def _taken(ready: Mapping[str, Ready], bare: set[str], effort: Effort) -> dict[str, int]:
    """In how many rounds each call is taken; the bare ones in all."""
    share, found = effort.seconds / max(len(ready), 1), {}
    for name, one in ready.items():
        cost = one.seconds * (one.repeats + (one.seconds < SETTLE))
        found[name] = max(min(int(share / cost), effort.most), one.least)
    most = max(found.values(), default=0)
    return {name: most if name in bare else count for name, count in found.items()}


def rounds(
    ready: Mapping[str, Ready], taken: Mapping[str, int], seed: int = 0
) -> dict[str, Float[np.ndarray, "n 2"]]:
    """Seconds of a call on the wall's and the processor's clock, by round; nan in rounds where it is not taken.

    What is taken in fewer rounds is taken in some of those of what is taken in more.
    """
    rng, total = np.random.default_rng(seed), max(taken.values(), default=0)
    samples = {name: np.full((total, 2), np.nan) for name in ready}
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for number, place in enumerate(rng.permutation(total)):
            for name in rng.permutation([name for name in ready if place < taken[name]]):
                one = ready[name]
                if one.seconds < SETTLE:
                    one.call()
                samples[name][number] = timed(one.call, one.repeats)
    finally:
        if collecting:
            gc.enable()
    return samples


def timed(call: Call, repeats: int) -> tuple[float, float]:
    """Seconds of one call, the mean of several: wall and processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - wall) / repeats, (time.process_time() - cpu) / repeats


def _row(entry: Entry, samples: Mapping[str, np.ndarray], note: str) -> Row:
    row: Row = {"name": entry.name, "kind": entry.kind, "rival": entry.rival, "beside": entry.beside}
    if entry.name not in samples:
        return row | {"note": note}
    own = samples[entry.name]
    row["rounds"] = int(np.isfinite(own[:, 0]).sum())
    row["ms"] = dict(zip(CLOCKS, (1e3 * np.nanmedian(own, axis=0)).tolist(), strict=True))
    row["over_bare"] = ratio(own, samples[entry.bare])
    ours = entry.rival or entry.beside
    if ours in samples:
        row["ours_over_it"] = ratio(samples[ours], own)
    return row


def ratio(one: Float[np.ndarray, "n 2"], other: Float[np.ndarray, "n 2"]) -> dict[str, list[float]]:
    """Clock -> median and quartiles of the ratios, round by round: [median, lower, upper]."""
    shares = one / other
    return {clock: np.nanquantile(shares[:, i], [0.5, 0.25, 0.75]).tolist() for i, clock in enumerate(CLOCKS)}
