"""Differences to the uniform merge, with their intervals, as a picture: one panel for each split and group."""

from collections.abc import Mapping, Sequence
from typing import Any

from moejax.report.axes import ticks
from moejax.report.html import Html, join, missing, shortened, tag

WIDTH, LABELS, LINE, FOOT = 360, 130, 15, 34


def intervals(results: Mapping[str, Any]) -> Html:
    """The panels side by side, on one scale."""
    panels = {}
    for split in ("held_in", "held_out"):
        for group in results.get("groups", ()):
            found = [(row.get("label", ""), _against(row, split, group)) for row in results.get("rows", ())]
            known = [(label, against) for label, against in found if against and label != "uniform"]
            if known:
                panels[f"{split.replace('_', '-')} {group}".strip()] = known
    if not panels:
        return missing("No row of the table is the uniform merge, so there are no differences to it.")
    ends = [100 * a[name] for known in panels.values() for _, a in known for name in ("low", "high")]
    marks = ticks(min(0.0, *ends), max(0.0, *ends))
    drawn = [_panel(title, known, marks) for title, known in panels.items()]
    return tag("div", *drawn, class_="panels two")


def _against(row: Mapping[str, Any], split: str, group: str) -> Mapping[str, float] | None:
    cell = (row.get(split) or {}).get(group)
    return cell and cell.get("against_uniform")


def _panel(title: str, known: Sequence[tuple[str, Mapping[str, float]]], marks: Sequence[float]) -> Html:
    height, right = LINE * len(known) + 4, WIDTH - 18
    first, last = marks[0], marks[-1]

    def at(points: float) -> str:
        return f"{LABELS + (points - first) / (last - first) * (right - LABELS):.1f}"

    parts = []
    for mark in marks:
        kind = "zero" if mark == 0 else "grid"
        parts.append(tag("line", x1=at(mark), x2=at(mark), y1=0, y2=height, class_=kind))
        parts.append(
            tag(
                "text",
                f"{mark:+g}".replace("-", "−") if mark else "0",
                x=at(mark),
                y=height + 13,
                class_="middle",
            )
        )
    for i, (label, against) in enumerate(known):
        gap, low, high = (100 * against[name] for name in ("difference", "low", "high"))
        y = LINE * i + LINE / 2 + 2
        said = tag("title", f"{label}: {gap:+.1f} [{low:+.1f}, {high:+.1f}]")
        parts.append(
            tag(
                "g",
                said,
                tag("text", shortened(label), x=LABELS - 8, y=y + 4, class_="end"),
                tag("line", x1=at(low), x2=at(high), y1=y, y2=y, class_="whisker"),
                tag("circle", cx=at(gap), cy=y, r=3.5, class_="dot"),
            )
        )
    below = tag(
        "text", "points above the uniform merge", x=(LABELS + right) / 2, y=height + 28, class_="middle"
    )
    view = f"0 0 {WIDTH} {height + FOOT}"
    drawn = tag("svg", *parts, below, viewBox=view, role="img", aria_label=f"{title}: difference to uniform")
    return tag("figure", tag("figcaption", title), join(drawn))
