"""Part 1: the routed layer over stated points of the grid, ours in each formulation, and peers.

A star around the centre (512 tokens, d = 1024, k = 2, r = 16): each line leaves it in one direction.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks import layer, limits
from benchmarks.cases import Size, draw
from benchmarks.machine import Rates
from benchmarks.measure import EFFORT, Effort, Entry, measure

CENTRE = Size()


@dataclass(frozen=True)
class Point:
    """A size; back: forward and backward; grain: whose the weights are; peers: whether they run here.

    Where they do, ours are measured in all that they compute: with scores, and with factors mixed.
    """

    size: Size
    back: bool = False
    grain: layer.Grain = "step"
    peers: bool = False

    def __str__(self) -> str:
        words = "forward + backward" if self.back else "forward"
        return f"{self.size}, {words}" + (f", weights of a {self.grain}" if self.grain != "step" else "")


def grid() -> Iterator[Point]:
    """All points, those that take longest last."""
    for e in (4, 8, 32, 128, 256):
        yield Point(replace(CENTRE, e=e), peers=True)
        yield Point(replace(CENTRE, e=e), back=True, peers=True)
    for n in (1, 8, 64, 2048):
        for e in (8, 32, 256):
            yield Point(replace(CENTRE, n=n, e=e), peers=e != 8)
    for n in (64, 2048):
        yield Point(replace(CENTRE, n=n, e=32), back=True)
    for k in (1, 4):
        for e in (8, 256):
            yield Point(replace(CENTRE, k=k, e=e))
    for d in (384, 2048, 4096):
        for e in (8, 32, 256):
            yield Point(replace(CENTRE, d=d, e=e), peers=e == 32 and d != 2048)
    for n, d in ((1, 384), (2048, 384), (1, 4096)):
        yield Point(replace(CENTRE, n=n, d=d, e=256))
    for e in (8, 32, 256):
        yield Point(replace(CENTRE, e=e), grain="example")
        yield Point(replace(CENTRE, e=e), grain="task")


def take(point: Point, rates: Rates, effort: Effort, peers: bool) -> dict[str, Any]:
    """One point measured."""
    case = draw(point.size)
    entries: list[Entry] = layer.entries(case, point.grain, point.back, point.peers)
    if peers and point.peers:
        from benchmarks import peers_layer

        entries += peers_layer.entries(case, point.back)
    merged, size = point.grain == "task", point.size
    found: dict[str, Any] = {"limit": limits.layer(size, rates, point.back, merged=merged)}
    if point.grain == "step":
        found["limit_scored"] = limits.layer(size, rates, point.back, scored=True)
        found["rule"] = layer.rule(size)
    about = {"title": str(point), "size": vars(point.size), "back": point.back, "grain": point.grain}
    return about | found | {"rows": measure(entries, effort)}


def part(
    rates: Rates, effort: Effort = EFFORT, peers: bool = True, points: Sequence[Point] = ()
) -> Iterator[dict[str, Any]]:
    """All points, one after the other."""
    for point in points or grid():
        yield take(point, rates, effort, peers)
