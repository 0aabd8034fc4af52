"""What a task is: rows of text by split, what is asked of them, and the answers that are allowed."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

SPLITS = ("train", "validation", "test")
Kind = Literal["classification", "generation"]


@dataclass(frozen=True)
class Row:
    """One example. `choices` only where options differ from row to row; `group` is a column of the table."""

    input: str
    instruction: str
    target: str
    choices: tuple[str, ...] | None = None
    group: str = ""


@dataclass(frozen=True)
class Task:
    """One task. `label_text[i]` is the phrase that stands for label `choices[i]` in similarity scoring."""

    name: str
    kind: Kind
    cluster: str
    instruction: str
    rows: Mapping[str, tuple[Row, ...]]
    """Rows of "train", "validation" and "test"; a split may be empty."""
    choices: tuple[str, ...] = ()
    label_text: tuple[str, ...] = ()
    skills: tuple[str, ...] = ()
    """Names of the held-in skills that the task asks for, where they are known."""

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups that its test rows fall into, sorted."""
        return tuple(sorted({row.group for row in self.rows["test"]}))

    def options(self, row: Row) -> tuple[str, ...]:
        """The labels that this row may be answered with; empty when the answer is free text."""
        return self.choices if row.choices is None else row.choices

    def phrases(self, row: Row) -> tuple[str, ...]:
        """The phrase of each of the row's options: its `label_text`, or the option itself."""
        known = dict(zip(self.choices, self.label_text, strict=True))
        return tuple(known.get(option, option) for option in self.options(row))

    def answer(self, row: Row) -> int:
        """Position of the row's target among its options."""
        return self.options(row).index(row.target)


def labels(tasks: Iterable[Task]) -> list[str]:
    """Label phrases of classification tasks, each once, in order of appearance: rows of the label matrix."""
    found: dict[str, None] = {}
    for task in tasks:
        if task.kind == "classification":
            found.update(dict.fromkeys(task.label_text))
            for split in SPLITS:
                for row in task.rows[split]:
                    if row.choices is not None:
                        found.update(dict.fromkeys(task.phrases(row)))
    return list(found)


def data_hash(tasks: Iterable[Task]) -> str:
    """sha256 over all that the tasks say, whatever their order."""
    digest = hashlib.sha256()
    for task in sorted(tasks, key=lambda task: task.name):
        about = [
            task.name,
            task.kind,
            task.cluster,
            task.instruction,
            task.choices,
            task.label_text,
            task.skills,
        ]
        rows = {
            split: [
                [row.input, row.instruction, row.target, row.choices, row.group] for row in task.rows[split]
            ]
            for split in SPLITS
        }
        digest.update(json.dumps([about, rows], ensure_ascii=False).encode())
    return digest.hexdigest()
