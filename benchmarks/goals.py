"""The goals: what was wanted, what was measured, and what bytes and operations alone would give.

A goal is met when both clocks say so. One that was not measured has failed.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from benchmarks.cases import FLOAT, Size
from benchmarks.decode import LOOP
from benchmarks.layer import OUTPUT, SCORED
from benchmarks.measure import CLOCKS
from benchmarks.model import SETTINGS, named

Results = Mapping[str, Any]
Row = Mapping[str, Any]


class Found(NamedTuple):
    """Clock -> value; limit: what bytes and operations alone give; where: at which point, if there are several."""

    values: dict[str, float]
    limit: float | None = None
    where: str = ""


class Goal(NamedTuple):
    """A value that may be at most so large, and where it is found; None: it was not measured."""

    name: str
    most: float
    find: Callable[[Results], Found | None]


class Verdict(NamedTuple):
    """A goal with what was found of it: "met", "missed", "missed on the wall's clock", …, or "not measured"."""

    goal: Goal
    found: Found | None

    @property
    def said(self) -> str:
        """In words."""
        if self.found is None:
            return "not measured: a failure"
        over = [clock for clock, value in self.found.values.items() if not value <= self.goal.most]
        if not over:
            return "met"
        return "missed" if len(over) == len(self.found.values) else f"missed ({over[0]})"


def verdicts(results: Results) -> list[Verdict]:
    """All goals."""
    return [Verdict(goal, goal.find(results)) for goal in GOALS]


def points(results: Results, part: str) -> list[Mapping[str, Any]]:
    """What a part has found; empty: it was not run."""
    return results["parts"].get(part, [])


def row(point: Mapping[str, Any], name: str) -> Row | None:
    """An entry of a point that was measured."""
    return next((one for one in point["rows"] if one["name"] == name and "note" not in one), None)


def _at(results: Results, size: Size, back: bool) -> Mapping[str, Any] | None:
    wanted = {"size": vars(size), "back": back, "grain": "step"}
    some = points(results, "layer")
    return next((one for one in some if all(one[name] == value for name, value in wanted.items())), None)


def _layer(e: int, back: bool = False) -> Callable[[Results], Found | None]:
    def find(results: Results) -> Found | None:
        point = _at(results, Size(e=e), back)
        one = point and row(point, OUTPUT.name)
        return Found(_medians(one["over_bare"]), point["limit"]) if point and one else None

    return find


def _growth(results: Results) -> Found | None:
    small, large = _layer(32)(results), _layer(256)(results)
    if small is None or large is None:
        return None
    assert small.limit and large.limit
    return Found({c: large.values[c] / small.values[c] for c in CLOCKS}, large.limit / small.limit)


def _decode(results: Results) -> Found | None:
    found = []
    for point in points(results, "decode"):
        one = row(point, f"{SCORED.name}, {LOOP}")
        if point["size"]["d"] == 1024 and one:
            shares = {c: v / point["limit"] for c, v in _medians(one["over_bare"]).items()}
            found.append(Found(shares, 1.0, f"e={point['size']['e']}"))
    return _worst(found)


def _memory(results: Results) -> Found | None:
    """What XLA needs for the layer with scores, less the scores: e = 256 over e = 32, both in blocks."""
    found: dict[int, float] = {}
    for point in points(results, "memory"):
        one = row(point, SCORED.name)
        if one and not point["back"] and one.get("temporary") is not None:
            n, e = point["size"]["n"], point["size"]["e"]
            found[e] = one["temporary"] - FLOAT * n * e
    return Found({"bytes": found[256] / found[32]}, 1.0) if {32, 256} <= found.keys() else None


def _rivals(results: Results, tokens: Callable[[int], bool]) -> Found | None:
    """Ours over the fastest peer that computes the same, where that is worst."""
    some = [point for point in points(results, "layer") if tokens(point["size"]["n"])]
    return _worst([one for point in some for one in _against(point)])


def _against(point: Mapping[str, Any]) -> Iterator[Found]:
    for one in point["rows"]:
        if one.get("rival") and "ours_over_it" in one:
            yield Found(_medians(one["ours_over_it"]), None, f"{one['name']}, {point['title']}")


def _overheads(results: Results) -> Found | None:
    """One token: what routing adds to JAX's bare call, over what it adds to torch's."""
    found = []
    for point in points(results, "layer"):
        rows = {one["name"]: one for one in point["rows"] if "ms" in one}
        if point["size"]["n"] != 1 or not {"bare, jax", "bare, torch"} <= rows.keys():
            continue
        for one in rows.values():
            if one["kind"] == "peer" and one["rival"] in rows:
                ours, bare, torch = (rows[name]["ms"] for name in (one["rival"], "bare, jax", "bare, torch"))
                shares = {c: (ours[c] - bare[c]) / max(one["ms"][c] - torch[c], 1e-9) for c in CLOCKS}
                found.append(Found(shares, None, f"{one['name']}, {point['title']}"))
    return _worst(found)


def _models(results: Results) -> Found | None:
    return _worst([one for point in points(results, "model") for one in _against(point)])


def _encoder(results: Results) -> Found | None:
    point = next((one for one in points(results, "model") if one["title"] == str(SETTINGS[0])), None)
    one = point and row(point, named(128))
    return Found(_medians(one["over_bare"]), point["limits"][named(128)]) if point and one else None


def _training(lesson: str) -> Callable[[Results], Found | None]:
    def find(results: Results) -> Found | None:
        one = next((one for one in points(results, "training") if one["lesson"] == lesson), None)
        return Found(one["ratio"]["cold"]) if one else None

    return find


def _minutes(results: Results) -> Found | None:
    return Found({"wall": results["seconds"] / 60}) if results.get("complete") else None


def _medians(ratio: Mapping[str, list[float]]) -> dict[str, float]:
    return {clock: values[0] for clock, values in ratio.items()}


def _worst(found: list[Found]) -> Found | None:
    return max(found, key=lambda one: max(one.values.values()), default=None)


GOALS = (
    Goal("layer (512 tokens, d = 1024, r = 16, k = 2), forward over bare, e = 8", 1.25, _layer(8)),
    Goal("layer, forward over bare, e = 256", 1.45, _layer(256)),
    Goal("layer, forward over bare, growth from e = 32 to e = 256", 1.2, _growth),
    Goal("layer, forward + backward over bare, e = 8", 1.35, _layer(8, True)),
    Goal("layer, forward + backward over bare, e = 256", 1.8, _layer(256, True)),
    Goal("decode of one token with scores, d = 1024, over the ratio of bytes alone", 1.15, _decode),
    Goal("memory beyond bank and scores, growth from e = 32 to e = 256: none, within a tenth", 1.1, _memory),
    Goal("layer, over the fastest peer of the same function", 1.0, lambda r: _rivals(r, lambda n: n > 1)),
    Goal("layer, one token, over the fastest such peer", 1.0, lambda r: _rivals(r, lambda n: n == 1)),
    Goal("layer, one token, what routing adds over what it adds to the peer", 1.0, _overheads),
    Goal("whole models, over peft of the same function", 1.0, _models),
    Goal("6-layer encoder, 128 experts on six projections, over bare", 1.8, _encoder),
    Goal("16 experts in one program over 16 runs, MiniLM, compiling included", 0.75, _training("minilm")),
    Goal("16 experts in one program over 16 runs, tiny, compiling included", 0.3, _training("tiny")),
    Goal("minutes that all of this takes", 30.0, _minutes),
)
