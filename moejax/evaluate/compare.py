"""From answers to results: accuracies by task, split and group of rows, and intervals against the uniform merge."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from moejax.evaluate.metrics import accuracy, balanced_accuracy, paired_interval

Answers = Mapping[str, np.ndarray]  # task -> the choice made for each test row

SIGHT = (
    ("nothing but the weights", frozenset()),
    ("what contributors hand over", frozenset({"own"})),
    ("the experts' data", frozenset({"expert_inputs", "expert_labels", "general"})),
    ("the target's training rows", frozenset({"target_inputs", "target_labels"})),
    ("the answers", frozenset({"test_task", "test_inputs", "test_labels"})),
)


@dataclass(frozen=True)
class Truth:
    """The test rows of one task: the right choice of each, and the group it counts in ("" when there is one)."""

    held_in: bool
    right: np.ndarray
    group: np.ndarray


def sight(needs: frozenset[str]) -> int:
    """Number of the group of `SIGHT` that grants belong to: the last that any of them is in."""
    return max((i for i, (_, grants) in enumerate(SIGHT) if needs & grants), default=0)


def result(
    answers: Answers, uniform: Answers | None, truths: Mapping[str, Truth], samples: int, seed: int
) -> dict[str, Any]:
    """One method's numbers: per task, means over held-in and held-out tasks, intervals of the difference to uniform.

    A task that the method has no answers for, or that has no row of a group, is left out; a group without any
    task has no cell, and a split without any is None (printed as a dash). Without `uniform`: no intervals.
    """
    tasks = {name: _task(found, truths[name]) for name, found in answers.items()}
    groups = sorted({group for truth in truths.values() for group in np.unique(truth.group)})
    splits: dict[str, Any] = {}
    for split, held_in in (("held_in", True), ("held_out", False)):
        names = [name for name in truths if truths[name].held_in == held_in and name in answers]
        in_group = {g: [name for name in names if g in truths[name].group] for g in groups}
        cells = {
            g: _mean(some, g, answers, uniform, truths, samples, seed) for g, some in in_group.items() if some
        }
        splits[split] = cells or None
    return {"tasks": tasks, **splits}


def _task(found: np.ndarray, truth: Truth) -> dict[str, dict[str, float]]:
    cells = {}
    for group in np.unique(truth.group):
        here = truth.group == group
        cells[str(group)] = {
            "accuracy": accuracy(found[here], truth.right[here]),
            "balanced_accuracy": balanced_accuracy(found[here], truth.right[here]),
            "rows": int(here.sum()),
        }
    return cells


def _mean(
    names: Sequence[str], group: str, answers: Answers, uniform: Answers | None, truths: Mapping[str, Truth],
    samples: int, seed: int,
) -> dict[str, Any]:  # fmt: skip
    here = {name: truths[name].group == group for name in names}
    cut = [(answers[name][rows], truths[name].right[rows]) for name, rows in here.items()]
    against = None
    if uniform is not None:
        ours = [found == right for found, right in cut]
        theirs = [uniform[name][rows] == truths[name].right[rows] for name, rows in here.items()]
        gap, low, high = paired_interval(ours, theirs, samples, seed)
        against = {"difference": gap, "low": low, "high": high}
    return {
        "accuracy": float(np.mean([accuracy(found, right) for found, right in cut])),
        "balanced_accuracy": float(np.mean([balanced_accuracy(found, right) for found, right in cut])),
        "against_uniform": against,
    }
