"""From answers to results: what rows are worth by task, split and group, and intervals against the uniform merge."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from moejax.evaluate.metrics import balanced_accuracy, nats, paired_interval

Found = Mapping[str, np.ndarray]
"""Of each test row of a task: `choice` (and of a decoder what `told` gives)."""
Answers = Mapping[str, Found]  # by task

MAIN = (
    "accuracy",
    "exact_match",
)  # what the intervals of the table are of, in a choice and in a written text
CHOSEN = {"accuracy": "choice", "accuracy_norm": "choice_norm"}
OVER = {"": "tokens", "byte_": "bytes"}  # what a perplexity counts

SIGHT = (
    ("nothing but the weights", frozenset()),
    ("what contributors hand over", frozenset({"own"})),
    ("the experts' data", frozenset({"expert_inputs", "expert_labels", "general"})),
    ("the target's training rows", frozenset({"target_inputs", "target_labels"})),
    ("the answers", frozenset({"test_task", "test_inputs", "test_labels"})),
)


@dataclass(frozen=True)
class Truth:
    """The test rows of one task: the right choice of each (-1: free text), and the group it counts in ("": the one)."""

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
            g: _cell(some, g, answers, uniform, truths, samples, seed) for g, some in in_group.items() if some
        }
        splits[split] = cells or None
    return {"tasks": tasks, **splits}


def score(cell: Mapping[str, Any]) -> float:
    """The number that stands in the table: of both kinds of task, of written texts, of choices."""
    return cell[next(name for name in ("score", "exact_match", "balanced_accuracy") if name in cell)]


def measure(results: Mapping[str, Any]) -> str:
    """What `score` is called, in results of this comparison; balanced accuracy where they do not say."""
    return results.get("measure", "balanced accuracy")


def measured(kinds: set[str]) -> str:
    """What `score` is called when the compared tasks are of these kinds."""
    names = {"classification": "balanced accuracy", "generation": "exact match"}
    return " or ".join(names[kind] for kind in sorted(kinds))


def worth(found: Found, truth: Truth) -> dict[str, np.ndarray]:
    """What each row is worth by each measure that is a mean over rows."""
    chosen = {name: found[column] == truth.right for name, column in CHOSEN.items() if column in found}
    return chosen | {name: found[name] for name in ("exact_match", "rouge_l") if name in found}


def _task(found: Found, truth: Truth) -> dict[str, dict[str, float]]:
    return {str(group): _numbers(found, truth, truth.group == group) for group in np.unique(truth.group)}


def _numbers(found: Found, truth: Truth, here: np.ndarray) -> dict[str, float]:
    """All measures of one task's rows."""
    cell: dict[str, float] = {}
    for name, each in worth(found, truth).items():
        cell[name] = float(np.mean(each[here]))
        if name in CHOSEN:
            cell[f"balanced_{name}"] = balanced_accuracy(found[CHOSEN[name]][here], truth.right[here])
    if "loss" in found:
        for prefix, parts in OVER.items():
            cell[f"{prefix}nats"] = nats(found["loss"][here], found[parts][here])
            cell[f"{prefix}perplexity"] = _perplexity(cell[f"{prefix}nats"])
    return cell | {"rows": int(here.sum())}


def _perplexity(nats: float) -> float:
    return float(np.exp(min(nats, 700.0)))  # beyond it is no number that JSON has


def _cell(
    names: Sequence[str], group: str, answers: Answers, uniform: Answers | None, truths: Mapping[str, Truth],
    samples: int, seed: int,
) -> dict[str, Any]:  # fmt: skip
    """Means over tasks, of each measure over those that have it; of perplexities the geometric mean."""
    here = {name: truths[name].group == group for name in names}
    each = {name: _numbers(answers[name], truths[name], here[name]) for name in names}
    every = dict.fromkeys(key for numbers in each.values() for key in numbers if key != "rows")
    cell: dict[str, Any] = {}
    for key in every:
        cell[key] = float(np.mean([numbers[key] for numbers in each.values() if key in numbers]))
    for prefix in OVER:
        if f"{prefix}nats" in cell:
            cell[f"{prefix}perplexity"] = _perplexity(cell[f"{prefix}nats"])
    if {"exact_match", "balanced_accuracy"} <= cell.keys():
        cell["score"] = float(np.mean([score(numbers) for numbers in each.values()]))
    cell["against_uniform"] = None
    if uniform is not None:
        found = {name: _rows(answers[name], truths[name], rows) for name, rows in here.items()}
        plain = {name: _rows(uniform[name], truths[name], rows) for name, rows in here.items()}
        cell["against_uniform"] = _against(found, plain, MAIN, samples, seed)
        more = [
            name
            for name in ("accuracy_norm", "rouge_l", *(f"{prefix}nats" for prefix in OVER))
            if name in cell
        ]
        if more:
            cell["intervals"] = {name: _against(found, plain, (name,), samples, seed) for name in more}
    return cell


def _rows(found: Found, truth: Truth, here: np.ndarray) -> dict[str, np.ndarray]:
    """What rows of a group are worth, and what perplexities are made of."""
    made = worth(found, truth)
    if "loss" in found:
        made |= {f"{prefix}nats": found["loss"] for prefix in OVER} | {
            name: found[name] for name in OVER.values()
        }
    return {name: each[here] for name, each in made.items()}


def _against(
    found: Mapping[str, Found], plain: Mapping[str, Found], names: Sequence[str], samples: int, seed: int
) -> dict[str, float]:
    """The paired interval of the first of these measures that each task has."""
    pairs = {task: next((name for name in names if name in rows), None) for task, rows in found.items()}
    pairs = {task: name for task, name in pairs.items() if name is not None}
    ours, theirs = ([some[task][name] for task, name in pairs.items()] for some in (found, plain))
    parts = None
    if names[0].endswith("nats"):
        parts = [found[task][OVER[names[0].removesuffix("nats")]] for task in pairs]
    gap, low, high = paired_interval(ours, theirs, samples, seed, parts=parts)
    return {"difference": gap, "low": low, "high": high}
