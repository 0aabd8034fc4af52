"""Axes of a panel: round numbers, a grid, names, and lines within."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from moejax.report.colours import PALETTE
from moejax.report.html import Html, tag

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 360, 200, 46, 36, 8, 16

Curve = list[tuple[float, float]]  # (x, y)


def ticks(low: float, high: float, count: int = 4, least: float = 0.0) -> list[float]:
    """Round numbers that enclose a range: multiples of 1, 2 or 5 times a power of ten, `least` apart or more."""
    span = high - low or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / count))
    step = max(least, next(power * m for m in (1, 2, 5, 10) if power * m * count >= span * (1 - 1e-9)))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]


class Axes(NamedTuple):
    """The round numbers that both axes are marked with; they enclose what is drawn."""

    across: Sequence[float]
    up: Sequence[float]

    def x(self, value: float) -> str:
        """Where a value lies across the panel."""
        first, last = self.across[0], self.across[-1]
        return f"{LEFT + (value - first) / (last - first) * (WIDTH - LEFT - RIGHT):.1f}"

    def y(self, value: float) -> str:
        """Where a value lies down the panel."""
        first, last = self.up[0], self.up[-1]
        return f"{TOP + (last - value) / (last - first) * (HEIGHT - TOP - BOTTOM):.1f}"

    def frame(self, across: str, up: str) -> list[Html]:
        """The grid, its numbers, and the names of the axes."""
        foot, parts = HEIGHT - BOTTOM, []
        for mark in self.up:
            y = self.y(mark)
            parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
            parts.append(tag("text", f"{mark:g}", x=LEFT - 6, y=float(y) + 4, class_="end"))
        parts += [
            tag("text", f"{mark:g}", x=self.x(mark), y=foot + 15, class_="middle") for mark in self.across
        ]
        parts.append(tag("text", across, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 5, class_="middle"))
        turned = f"rotate(-90 11 {(TOP + foot) / 2})"
        parts.append(tag("text", up, x=11, y=(TOP + foot) / 2, transform=turned, class_="middle"))
        return parts

    def line(self, curve: Curve, title: str, number: int, dashed: bool = True) -> Html:
        """A line in the colour, and where `dashed` the dashes, of its number; its title shows on a pointer."""
        points = " ".join(f"{self.x(x)},{self.y(y)}" for x, y in curve)
        return tag("polyline", tag("title", title), points=points, class_="curve", **_look(number, dashed))

    def dot(self, x: float, y: float, title: str, number: int) -> Html:
        """A point in the colour of its number."""
        colour = f"--c:{PALETTE[number % len(PALETTE)]}"
        return tag(
            "circle", tag("title", title), cx=self.x(x), cy=self.y(y), r=3.5, class_="own", style=colour
        )

    def drawn(self, parts: Sequence[Html], said: str) -> Html:
        """The panel of these parts."""
        return tag("svg", *parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=said)


def legend(names: Sequence[str]) -> Html:
    """Which line has which name, in their order."""
    marks = []
    for i, name in enumerate(names):
        line = tag("polyline", points="0,5 26,5", class_="curve", **_look(i, True))
        marks.append(tag("span", tag("svg", line, viewBox="0 0 26 10", class_="dash"), name))
    return tag("p", *marks, class_="legend")


def _look(number: int, dashed: bool) -> dict[str, Any]:
    dash = f"{3 * (number + 1)} 3" if dashed and number else None
    return {"style": f"--c:{PALETTE[number % len(PALETTE)]}", "stroke-dasharray": dash}
