"""Learning curves: loss by step, a panel for each loop of training, drawn from the records of metrics.jsonl."""

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from moejax.report.colours import PALETTE
from moejax.report.html import Html, join, missing, tag

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 360, 200, 46, 36, 8, 16
POINTS = 300  # of a curve; longer ones are drawn as means of equal stretches

Curve = list[tuple[float, float]]  # (step, loss)


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


def ticks(low: float, high: float, count: int = 4, least: float = 0.0) -> list[float]:
    """Round numbers that enclose a range: multiples of 1, 2 or 5 times a power of ten, `least` apart or more."""
    span = high - low or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / count))
    step = max(least, next(power * m for m in (1, 2, 5, 10) if power * m * count >= span * (1 - 1e-9)))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]


def _panel(name: str, found: Mapping[str, Curve]) -> Html:
    thin = {target: thinned(curve) for target, curve in found.items()}
    points = [point for curve in thin.values() for point in curve]
    steps = ticks(0.0, max(x for x, _ in points), least=1.0)
    losses = ticks(min(y for _, y in points), max(y for _, y in points))

    def x(step: float) -> str:
        return f"{LEFT + step / steps[-1] * (WIDTH - LEFT - RIGHT):.1f}"

    def y(loss: float) -> str:
        return f"{TOP + (losses[-1] - loss) / (losses[-1] - losses[0]) * (HEIGHT - TOP - BOTTOM):.1f}"

    foot, parts = HEIGHT - BOTTOM, []
    for loss in losses:
        parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y(loss), y2=y(loss), class_="grid"))
        parts.append(tag("text", f"{loss:g}", x=LEFT - 6, y=float(y(loss)) + 4, class_="end"))
    parts += [tag("text", f"{step:g}", x=x(step), y=foot + 15, class_="middle") for step in steps]
    parts.append(tag("text", "step", x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 5, class_="middle"))
    turned = f"rotate(-90 11 {(TOP + foot) / 2})"
    parts.append(tag("text", "loss", x=11, y=(TOP + foot) / 2, transform=turned, class_="middle"))
    for i, (target, curve) in enumerate(thin.items()):
        line = " ".join(f"{x(step)},{y(loss)}" for step, loss in curve)
        dash = f"{3 * (i + 1)} 3" if len(thin) > 1 and i else None
        style = {"style": f"--c:{PALETTE[i % len(PALETTE)]}", "stroke-dasharray": dash}
        parts.append(tag("polyline", tag("title", target or name), points=line, class_="curve", **style))
    view, said = f"0 0 {WIDTH} {HEIGHT}", f"{name}: loss by step"
    drawn = tag("svg", *parts, viewBox=view, role="img", aria_label=said)
    return tag("figure", tag("figcaption", name), join(drawn, _legend(list(thin))))


def _legend(targets: Sequence[str]) -> Html | None:
    """Which line is which target's, where there are several."""
    if targets == [""]:
        return None
    marks = []
    for i, target in enumerate(targets):
        dash = f"{3 * (i + 1)} 3" if i else None
        style = {"style": f"--c:{PALETTE[i % len(PALETTE)]}", "stroke-dasharray": dash}
        line = tag("polyline", points="0,5 26,5", class_="curve", **style)
        marks.append(tag("span", tag("svg", line, viewBox="0 0 26 10", class_="dash"), target))
    return tag("p", *marks, class_="legend")
