"""Scores as bars: a panel for each split and group, in it a bar for each method, from 0 to 1."""

from collections.abc import Mapping, Sequence
from typing import Any

from moejax.evaluate.compare import measure, score
from moejax.evaluate.table import points
from moejax.report.html import Html, join, missing, shortened, tag

WIDTH, LABELS, LINE, FOOT = 360, 130, 18, 34
MARKS = (0.0, 0.25, 0.5, 0.75, 1.0)


def bars(results: Mapping[str, Any]) -> Html:
    """The panels side by side; a method without a score there has no bar."""
    panels = {}
    for split in ("held_in", "held_out"):
        for group in results.get("groups", ()):
            cells = [
                (row.get("label", ""), (row.get(split) or {}).get(group)) for row in results.get("rows", ())
            ]
            known = [(label, score(cell)) for label, cell in cells if cell]
            if known:
                panels[f"{split.replace('_', '-')} {group}".strip()] = known
    if not panels:
        return missing("The results hold no scores, so there are no bars.")
    drawn = [_panel(title, known, measure(results)) for title, known in panels.items()]
    return tag("div", *drawn, class_="panels two")


def _panel(title: str, known: Sequence[tuple[str, float]], what: str) -> Html:
    height, parts = LINE * len(known) + 4, []
    for mark in MARKS:
        x = at(mark)
        parts.append(tag("line", x1=x, x2=x, y1=0, y2=height, class_="grid" if mark else "zero"))
        parts.append(tag("text", f"{mark:g}", x=x, y=height + 13, class_="middle"))
    for i, (label, value) in enumerate(known):
        y, end = LINE * i + 5, at(value)
        parts.append(tag("text", shortened(label), x=LABELS - 8, y=y + 10, class_="end"))
        said, width = tag("title", f"{label}: {value:.3f}"), f"{float(end) - LABELS:.1f}"
        parts.append(tag("rect", said, x=LABELS, y=y, width=width, height=LINE - 6, class_="bar"))
        parts.append(tag("text", points(value), x=float(end) + 4, y=y + 10))
    parts.append(tag("text", what, x=(LABELS + float(at(1.0))) / 2, y=height + 28, class_="middle"))
    view = f"0 0 {WIDTH} {height + FOOT}"
    drawn = tag("svg", *parts, viewBox=view, role="img", aria_label=f"{title}: {what} of each method")
    return tag("figure", tag("figcaption", title), join(drawn))


def at(value: float) -> str:
    """Where a score lies across a panel; the number at a bar's end still fits."""
    return f"{LABELS + value * (WIDTH - LABELS - 34):.1f}"
