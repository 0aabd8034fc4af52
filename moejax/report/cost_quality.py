"""Cost and quality of a choice between a strong and a weak member: a panel and a table for each split and group."""

from collections.abc import Mapping, Sequence
from typing import Any

from moejax.evaluate.cost_table import HEADS, cells, numbers
from moejax.report.axes import Axes, legend, ticks
from moejax.report.html import Html, box, join, tag

EXPLAINED = (
    "Across: the share of requests that go to the strong member, by the threshold; the cost of a request rises with it "
    "from the weak member's price to the strong one's (the bare base's is 1; the router's own work is not in it). "
    "Up: the share of right answers. A straight grey line is a random choice. The dot is the router's own threshold, "
    "which was calibrated without the test rows."
)


def cost_quality(results: Mapping[str, Any]) -> Html | None:
    """Nothing where no row chooses between two members."""
    found = cells(results)
    if not found:
        return None
    panels = [_panel(title, known) for title, known in found.items()]
    pairs = tag("ul", *(tag("li", said(row)) for row in results["rows"] if row.get("curves")))
    return join(tag("p", EXPLAINED), pairs, tag("div", *panels, class_="panels two"))


def said(row: Mapping[str, Any]) -> str:
    """Who the members of a row are, and what they cost."""
    pair = row["curves"]
    dear, cheap = (pair["price"][name] for name in ("strong", "weak"))
    return (
        f"{row['label']}: strong {pair['strong']} (price {dear:.4g}), weak {pair['weak']} (price {cheap:.4g})"
    )


def _panel(title: str, known: Sequence[tuple[str, Mapping[str, Any]]]) -> Html:
    points = {label: list(zip(cell["share"], cell["accuracy"], strict=True)) for label, cell in known}
    heights = [y for curve in points.values() for _, y in curve] + [
        cell["accuracy_there"] for _, cell in known
    ]
    axes = Axes([0.0, 0.25, 0.5, 0.75, 1.0], ticks(min(heights), max(heights)))
    parts = axes.frame("share of requests to the strong member", "right answers")
    for curve in points.values():
        (x0, y0), (x1, y1) = curve[0], curve[-1]
        ends = {"x1": axes.x(x0), "y1": axes.y(y0), "x2": axes.x(x1), "y2": axes.y(y1)}
        parts.append(tag("line", tag("title", "a random choice"), class_="zero", **ends))
    for i, (label, cell) in enumerate(known):
        parts.append(axes.line(points[label], label, i))
        parts.append(axes.dot(cell["called"], cell["accuracy_there"], f"{label}: its own threshold", i))
    drawn = axes.drawn(parts, f"{title}: right answers by share of requests to the strong member")
    caption = tag("figcaption", title)
    return tag("figure", caption, join(drawn, legend(list(points)), _table(known)))


def _table(known: Sequence[tuple[str, Mapping[str, Any]]]) -> Html:
    head = tag("tr", tag("th", "method", scope="col"), *(tag("th", name, scope="col") for name in HEADS))
    lines = [tag("tr", tag("th", label, scope="row"), *_numbers(cell)) for label, cell in known]
    return box(tag("table", tag("thead", head), tag("tbody", *lines), class_="methods"))


def _numbers(cell: Mapping[str, Any]) -> list[Html]:
    """The cells of a line; the sentence that says what is undefined runs over those that it stands for."""
    said = numbers(cell)
    if cell["apgr"] is not None:
        return [tag("td", number) for number in said]
    rest = tag("td", said[2], colspan=len(said) - 2, class_="why")
    return [*(tag("td", number) for number in said[:2]), rest]
