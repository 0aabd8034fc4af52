"""What else was measured of a decoder's answers: each measure of each method, by split and group of rows."""

from collections.abc import Mapping
from typing import Any

from moejax.evaluate.table import DASH, points
from moejax.report.html import Html, box, breakable, join, tag

NAMES = {
    "accuracy": "accuracy", "accuracy_norm": "accuracy, by character", "exact_match": "exact match",
    "rouge_l": "ROUGE-L", "perplexity": "perplexity", "byte_perplexity": "perplexity by byte",
}  # fmt: skip
SHARES = ("accuracy", "accuracy_norm", "exact_match", "rouge_l")
NOTE = (
    "Means over the tasks that have the measure, of perplexities geometric ones. Accuracy is of the option with the "
    "highest log-likelihood, a sum over its tokens; by character, of the highest log-likelihood divided by its length. "
    "Perplexity is of the right answer, by token or by byte, its end token left out."
)


def measures(results: Mapping[str, Any]) -> Html | None:
    """A table for each split and group; None where nothing but accuracies of choices was measured."""
    rows = [row for row in results.get("rows", ()) if "not_applicable" not in row]
    tables = []
    for split in ("held_in", "held_out"):
        for group in results.get("groups", ()):
            cells = {row["label"]: (row.get(split) or {}).get(group) for row in rows}
            known = {label: cell for label, cell in cells.items() if cell and "perplexity" in cell}
            if known:
                tables.append(_table(f"{split.replace('_', '-')} {group}".strip(), known))
    return join(*tables, tag("p", NOTE, class_="note")) if tables else None


def _table(title: str, cells: Mapping[str, Mapping[str, float]]) -> Html:
    names = [name for name in NAMES if any(name in cell for cell in cells.values())]
    heads = tag("tr", tag("th", title, scope="col"), *(tag("th", NAMES[name], scope="col") for name in names))
    lines = [
        tag("tr", tag("th", breakable(label), scope="row"), *(tag("td", _said(cell, name)) for name in names))
        for label, cell in cells.items()
    ]
    return box(tag("table", tag("thead", heads), tag("tbody", *lines), class_="methods"))


def _said(cell: Mapping[str, float], name: str) -> str:
    if name not in cell:
        return DASH
    if name in SHARES:
        return points(cell[name])
    return (
        f"{cell[name]:.2f}"
        if cell[name] < 100
        else f"{cell[name]:,.0f}"
        if cell[name] < 1e6
        else f"{cell[name]:.0e}"
    )
