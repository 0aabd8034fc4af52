"""The score of every method on every task (balanced accuracy, exact match), a heat map for each group of rows."""

from collections.abc import Mapping, Sequence
from math import ceil, floor
from typing import Any

from moejax.evaluate.compare import score
from moejax.evaluate.table import said
from moejax.report.heat_map import heat_map
from moejax.report.html import Html, join, missing


def accuracy(results: Mapping[str, Any]) -> Html:
    """Heat maps of methods by tasks, all on one scale."""
    rows = [row for row in results.get("rows", ()) if row.get("tasks")]
    if not rows:
        return missing("The results hold no accuracies by task.")
    parts = task_parts(results)
    tasks = [task for _, some in parts for task in some]
    found = [score(cell) for row in rows for cells in row["tasks"].values() for cell in cells.values()]
    scale = floor(10 * min(found)) / 10, ceil(10 * max(found)) / 10
    maps = []
    for group in results.get("groups", [""]):
        cells = [[row["tasks"].get(task, {}).get(group) for task in tasks] for row in rows]
        values = [[cell and score(cell) for cell in line] for line in cells]
        spans = [(name, len(some)) for name, some in parts] if len(parts) > 1 else []
        caption = f"{said(results)}, {group} rows" if group else said(results)
        labels = [row["label"] for row in rows]
        maps.append(heat_map(labels, tasks, values, scale, ("method", "task"), caption, parts=spans))
    return join(*maps)


def task_parts(results: Mapping[str, Any]) -> list[tuple[str, Sequence[str]]]:
    """(held-in, its tasks), (held-out, its tasks); one part without a name where the results do not say which."""
    tasks = results.get("tasks")
    if tasks:
        return [(part.replace("_", "-"), names) for part, names in tasks.items() if names]
    every = dict.fromkeys(task for row in results.get("rows", ()) for task in row.get("tasks", {}))
    return [("", list(every))]
