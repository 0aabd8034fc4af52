"""Whose task is whose, for experts that were trained elsewhere: held-in tasks have an expert, held-out ones none."""

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from moejax.contract import Split
from moejax.experts.pool import Pool
from moejax.types import Batch, NotApplicable, UserError

Experts = Mapping[str, str | None]  # name of an expert -> the task that its moejax.json names


def said_tasks(pool: Pool) -> dict[str, str | None]:
    """The experts of a pool, each with the task that its `moejax.json` names, or None."""
    tasks = {name: info.get("task") for name, info in zip(pool.names, pool.infos, strict=True)}
    return {name: task if isinstance(task, str) else None for name, task in tasks.items()}


def split_tasks(
    tasks: Sequence[str], experts: Experts, held_in: tuple[str, ...] = (), held_out: tuple[str, ...] = ()
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Held-in tasks: those that an expert has the name of or says it is for; held-out: the others. Given ones stay."""
    theirs = {*experts, *experts.values()}
    held_in = held_in or tuple(name for name in tasks if name in theirs and name not in held_out)
    return held_in, held_out or tuple(name for name in tasks if name not in held_in)


def tasks_of(experts: Experts, held_in: Collection[str]) -> dict[str, str]:
    """Expert -> its held-in task: the one it says it is for, else the one of its name; experts without are left out."""
    found = {}
    for name, said in experts.items():
        if task := next((task for task in (said, name) if task in held_in), None):
            found[name] = task
    return found


def experts_of(tasks: Mapping[str, str]) -> dict[str, str]:
    """Task -> the expert that is its own, from `tasks_of`: the one of its name, else the first that is for it."""
    found: dict[str, str] = {}
    for name, task in tasks.items():
        if name == task or task not in found:
            found[task] = name
    return found


def said(
    experts: Experts, tasks: Mapping[str, str], held_in: Sequence[str], held_out: Sequence[str]
) -> Iterator[str]:
    """Lines for the user: what is held in and out, by whose name, and what does not go together."""
    own = experts_of(tasks)
    yield "held in: " + (", ".join(f"{t} (expert {own[t]})" if t in own else t for t in held_in) or "no task")
    yield "held out: " + (", ".join(held_out) or "no task")
    for name, task in experts.items():
        if name not in tasks:
            yield f"expert {name} has no task in the data" + (f", which lacks {task}" if task else "")
        for out in {task, name} & {*held_out}:
            yield f"warning: {out} is held out, but expert {name} is for it"


def check_public(experts: Experts, public: Collection[str]) -> None:
    """Raise UserError where a public task is one that an expert was trained on."""
    for name, task in experts.items():
        if mine := next((task for task in (task, name) if task in public), None):
            raise UserError(
                f"task {mine} is in data.general, but expert {name} is for it: public rows are nobody's own"
            )


class NoRows:
    """Rows that are not there: who wants them is told what is missing."""

    def __init__(self, why: str):
        self.why = why

    def __len__(self) -> int:
        raise NotApplicable(self.why)

    def take(self, index: np.ndarray) -> Batch:
        """Raises NotApplicable."""
        raise NotApplicable(self.why)

    def texts(self, index: np.ndarray) -> list[str]:
        """Raises NotApplicable."""
        raise NotApplicable(self.why)


class OwnData(dict[str, Split]):
    """Expert -> the rows of its own task; raises NotApplicable for an expert without any."""

    def __missing__(self, name: str) -> Split:
        raise NotApplicable(
            f"expert {name} has no task in the data: name it as a task, or name one in its moejax.json"
        )
