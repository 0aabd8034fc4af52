"""The compared methods: scores with their intervals, grouped by what each method was allowed to see."""

from collections.abc import Mapping
from typing import Any

from moejax.evaluate.table import INTERVAL, columns, compared, lines, said
from moejax.report.html import Html, box, breakable, join, missing, tag


def comparison(results: Mapping[str, Any]) -> Html:
    """The table of the terminal, each interval under its score."""
    lacking = [name for name in ("groups", "rows") if not results.get(name)]
    if lacking:
        return missing(f"The results hold no {lacking[0]}, so there is nothing to compare.")
    broken = [row for row in results["rows"] if "not_applicable" not in row and COMPLETE - row.keys()]
    if broken:
        lost = sorted(COMPLETE - broken[0].keys())[0]
        return missing(
            f"The results of {broken[0].get('label', 'a method')} hold no {lost}: there is no table."
        )
    heads = columns(results)
    names = [tag("th", _head(name), scope="col") for name in heads if name != INTERVAL]
    bodies = []
    for sight, some in lines(results):
        width = len(names)
        over = tag("tr", tag("th", f"sees {sight}", colspan=width, scope="colgroup"), class_="sight")
        bodies.append(tag("tbody", over, *(_line(heads, cells) for cells in some)))
    table = tag("table", tag("thead", tag("tr", *names)), *bodies, class_="methods")
    return join(box(table), tag("p", note(results), class_="note"))


COMPLETE = {"label", "sight", "held_in", "held_out", "cost"}


def note(results: Mapping[str, Any]) -> str:
    """What the numbers are."""
    return (
        f"{said(results)}, mean over tasks. Below it: {compared(results)} against the uniform merge in points, with "
        "its paired bootstrap 95% interval. Time and memory are of one batch, beside the bare base."
    )


def _head(name: str) -> str:
    return {"trained": "parameters trained", "fit s": "fit, s"}.get(name, name)


def _line(heads: list[str], cells: list[str]) -> Html:
    label = tag("th", breakable(cells[0]), scope="row")
    if len(cells) < len(heads):
        why = tag("td", f"not applicable: {cells[1]}", colspan=len(heads), class_="why")
        return tag("tr", label, why)
    found = []
    for i, (head, cell) in enumerate(zip(heads, cells, strict=True)):
        if i and head != INTERVAL:
            below = cells[i + 1] if heads[i + 1 : i + 2] == [INTERVAL] else ""
            gap = tag("small", below) if below else None
            found.append(tag("td", cell, gap))
    return tag("tr", label, *found)
