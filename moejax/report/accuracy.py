"""Balanced accuracy of every method on every task, a heat map for each group of rows."""

from collections.abc import Mapping, Sequence
from math import ceil, floor
from typing import Any

from moejax.report.heat_map import heat_map
from moejax.report.html import Html, join, missing


def accuracy(results: Mapping[str, Any]) -> Html:
    """Heat maps of methods by tasks, all on one scale."""
    rows = [row for row in results.get("rows", ()) if row.get("tasks")]
    if not rows:
        return missing("The results hold no accuracies by task.")
    parts = task_parts(results)
    tasks = [task for _, some in parts for task in some]
    found = [
        cell["balanced_accuracy"]
        for row in rows
        for cells in row["tasks"].values()
        for cell in cells.values()
    ]
    scale = floor(10 * min(found)) / 10, ceil(10 * max(found)) / 10
    maps = []
    for group in results.get("groups", [""]):
        values = [
            [row["tasks"].get(task, {}).get(group, {}).get("balanced_accuracy") for task in tasks]
            for row in rows
        ]
        spans = [(name, len(some)) for name, some in parts] if len(parts) > 1 else []
        caption = f"Balanced accuracy, {group} rows" if group else "Balanced accuracy"
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
