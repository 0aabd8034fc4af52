"""Learning curves: loss by step, a panel for each loop of training, drawn from the records of metrics.jsonl."""

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from moejax.report.axes import Axes, Curve, legend, ticks
from moejax.report.html import Html, join, missing, tag

POINTS = 300  # of a curve; longer ones are drawn as means of equal stretches


def curves(metrics: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> Html:
    """A panel a loop; fits of one loop for several targets share a panel."""
    labels = {row.get("row"): row.get("label") for row in results.get("rows", ())}
    panels = loops(metrics, labels)
    if not panels:
        return missing(
            "The run has no records of training in metrics.jsonl, so there are no learning curves."
        )
    return tag("div", *(_panel(name, found) for name, found in panels.items()), class_="panels")


def loops(
    metrics: Iterable[Mapping[str, Any]], labels: Mapping[Any, Any] = MappingProxyType({})
) -> dict[str, dict[str, Curve]]:
    """Loop -> target ("" without one) -> its curve; of a step that ran twice the last, no loss that is not finite.

    labels: what a row's text is called in the table.
    """
    found: dict[str, dict[str, dict[float, float]]] = {}
    for record in metrics:
        if isinstance(record.get("loss"), int | float) and isinstance(record.get("step"), int):
            row, _, target = str(record.get("stage", "")).partition("@")
            row, loop = row.partition("/")[2], str(record.get("loop", ""))  # "routers/arrow(k=2)", "experts"
            name = " ".join(filter(None, [str(labels.get(row, row)), loop]))
            found.setdefault(name, {}).setdefault(target, {})[float(record["step"])] = float(record["loss"])
    return {
        name: {target: sorted(curve.items()) for target, curve in some.items()}
        for name, some in found.items()
    }


def thinned(curve: Curve) -> Curve:
    """The curve in at most `POINTS` points, each the mean of a stretch."""
    size = math.ceil(len(curve) / POINTS)
    parts = [curve[i : i + size] for i in range(0, len(curve), size)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def _panel(name: str, found: Mapping[str, Curve]) -> Html:
    thin = {target: thinned(curve) for target, curve in found.items()}
    points = [point for curve in thin.values() for point in curve]
    steps = ticks(0.0, max(x for x, _ in points), least=1.0)
    axes = Axes(steps, ticks(min(y for _, y in points), max(y for _, y in points)))
    parts = axes.frame("step", "loss")
    for i, (target, curve) in enumerate(thin.items()):
        parts.append(axes.line(curve, target or name, i, dashed=len(thin) > 1))
    return tag(
        "figure",
        tag("figcaption", name),
        join(axes.drawn(parts, f"{name}: loss by step"), _legend(list(thin))),
    )


def _legend(targets: Sequence[str]) -> Html | None:
    """Which line is which target's, where there are several."""
    return None if targets == [""] else legend(targets)
