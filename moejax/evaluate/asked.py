"""What a base that writes is asked of a task's test rows: lines whose answers are weighed, requests it goes on with.

A line is a request and one answer to it: each option of a classification task, the reference of a generation task.
Only the answer's own tokens are weighed, not the end token, as in lm_eval.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from moejax.data.batch import collate, widest
from moejax.data.encode import Encoded, answered, encode
from moejax.data.tasks import Task
from moejax.embed.embedder import said
from moejax.models.base import Base
from moejax.train.rows import ArrayRows
from moejax.train.rows import stack as rows_stack
from moejax.types import UserError


class Asked(NamedTuple):
    """One task's test rows as a decoder or a seq2seq is asked.

    row: of each line the test row that it is of; size: of its answer, in characters, bytes and tokens; right: of each
    row the option that is right. requests, references: of a generation task, padded on the left, and the texts wanted.
    """

    lines: ArrayRows
    row: Int[np.ndarray, "m"]
    size: Int[np.ndarray, "m 3"]
    right: Int[np.ndarray, "n"]
    requests: ArrayRows | None = None
    references: tuple[str, ...] = ()

    def of_expert(self, number: int) -> "Asked":
        """The same, told which expert's the rows are."""
        requests = self.requests and owned(self.requests, number)
        return self._replace(lines=owned(self.lines, number), requests=requests)


def owned(rows: ArrayRows, number: int) -> ArrayRows:
    """Rows of which `Batch.expert` is this expert."""
    owner = np.full(len(rows.whole.tokens), number, np.int32)
    return replace(rows, whole=rows.whole._replace(expert=owner))


def ask(base: Base, tasks: Mapping[str, Task], window: int, new: int) -> dict[str, Asked]:
    """The test rows of all tasks, all lines in one batch and all requests in another, so that each compiles once.

    Raises UserError where an answer has no token, or a text with `new` tokens more exceeds what the base holds.
    """
    lines, requests = {}, {}
    for name, task in tasks.items():
        rows, choosing = task.rows["test"], task.kind == "classification"
        how = "each" if choosing else "own"
        lines[name] = encode(task, rows, base.tokenizer, window, base.kind, answers=how, end=False)
        for line in lines[name].lines:
            if not answered(line):
                raise UserError(f"{name}, row {line.row}: this tokenizer finds no token in an answer to it")
        if not choosing:
            requests[name] = encode(task, rows, base.tokenizer, window, base.kind, answers="none")
    first = _batch(lines, tasks)
    second = _batch(requests, tasks, left=True) if requests else {}
    most = getattr(base.model.config, "positions", None)
    longest = max((rows.whole.tokens.shape[1] for rows in second.values()), default=0)
    if second and most is not None and longest + new > most:
        raise UserError(
            f"requests of {longest} tokens with evaluation.max_new {new} more exceed the {most} that this base holds: "
            "give a smaller evaluation.max_new, or a smaller data.window"
        )
    return {name: _asked(tasks[name], lines[name], first[name], second.get(name)) for name in tasks}


def _batch(
    parts: Mapping[str, Encoded], tasks: Mapping[str, Task], left: bool = False
) -> dict[str, ArrayRows]:
    """The lines of all tasks as rows of one batch."""
    width, options = widest(parts.values())
    whole = rows_stack([collate(one, width=width, options=options, left=left) for one in parts.values()])
    words, index, at = [], {}, 0
    for name, one in parts.items():
        rows = tasks[name].rows["test"]
        words += [said(rows[line.row].input, rows[line.row].instruction) for line in one.lines]
        index[name] = np.arange(at, at := at + len(one.lines))
    return {name: ArrayRows(whole, some, words) for name, some in index.items()}


def _asked(task: Task, encoded: Encoded, lines: ArrayRows, requests: ArrayRows | None) -> Asked:
    rows, sizes = task.rows["test"], []
    for line in encoded.lines:
        row = rows[line.row]
        text = task.options(row)[line.choice] if line.choice >= 0 else row.target
        sizes.append((len(text), len(text.encode()), answered(line)))
    right = [line.target if line.choice >= 0 else 0 for line in encoded.lines]
    row = np.array([line.row for line in encoded.lines])
    first = np.unique(row, return_index=True)[1]
    references = () if requests is None else tuple(one.target for one in rows)
    return Asked(lines, row, np.array(sizes), np.array(right)[first], requests, references)
