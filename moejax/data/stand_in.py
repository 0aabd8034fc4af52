"""Files that stand in for a published set: its layout and its columns, a few rows of invented words.

They are read as the set itself is. Each has rows that must be left out: of a template that is not used, without an
answer, in a folder that is skipped.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from moejax.data.hub_sets import HubSet, Kind

WORDS = tuple("ash bay elm fir gum ivy oak oat pea rye tea yew".split())
TEMPLATES = ("first_form", "second_form")
Rows = list[dict[str, Any]]


def write_stand_in(hub_set: HubSet, folder: Path, tasks: Sequence[str], rows: int) -> None:
    """Files of these tasks, `rows` usable rows for each task and part (or template) in `folder`.

    The answer of task n is the word n + 1 places behind the text's first, so that tasks differ and can be learned.
    """
    if hub_set.task:
        parts = tuple(dict.fromkeys(hub_set.splits.values())) if hub_set.split else hub_set.parts
        every = [
            row
            for n, task in enumerate(tasks)
            for part in parts
            for row in _rows(hub_set, n, task, part, rows)
        ]
        _write(hub_set, folder / "data" / f"{hub_set.parts[0]}-00000-of-00001", every)
        return
    for n, task in enumerate(tasks):
        if not hub_set.parts:
            _write(hub_set, folder / task, list(_rows(hub_set, n, task, "", rows)))
            continue
        names = [f"{task}_{form}" for form in TEMPLATES] if hub_set.templates else [task]
        for name in names + [task + end for end in hub_set.skip if hub_set.templates]:
            for part in hub_set.parts:
                stem = f"{part}-00000-of-00001" if hub_set.files == "parquet" else part
                _write(hub_set, folder / name / stem, list(_rows(hub_set, n, task, part, rows)))


def _rows(hub_set: HubSet, n: int, task: str, part: str, rows: int) -> Iterator[dict[str, Any]]:
    """Usable rows, one without an answer, and one of a template that is not read."""
    for i in range(rows):
        yield _row(hub_set, n, task, part, i)
    yield _row(hub_set, n, task, part, rows) | {hub_set.target: [] if _many(hub_set) else " "}
    if hub_set.keep:
        yield _row(hub_set, n, task, part, rows) | {hub_set.keep[0]: "fs_opt"}


def _row(hub_set: HubSet, n: int, task: str, part: str, i: int) -> dict[str, Any]:
    shift = i + 3 * len(part)
    text = f"{WORDS[shift % len(WORDS)]} {WORDS[i % 7]} {WORDS[(i * i) % 11]} ?"
    answer = WORDS[(shift + n + 1) % len(WORDS)]
    row = {name: _filler(kind, i) for name, kind in hub_set.columns.items()}
    row |= {hub_set.input: text, hub_set.target: [answer] if _many(hub_set) else answer}
    if hub_set.choices:
        row[hub_set.choices] = list(WORDS)
    if hub_set.task:
        row[hub_set.task] = task
    if hub_set.split:
        row[hub_set.split] = part
    if hub_set.keep:
        row[hub_set.keep[0]] = hub_set.keep[1][0]
    return row


def _many(hub_set: HubSet) -> bool:
    return hub_set.columns[hub_set.target] == "texts"


def _filler(kind: Kind, i: int) -> Any:
    return {"text": WORDS[i % len(WORDS)], "texts": [WORDS[i % len(WORDS)]], "number": i, "numbers": [i, 1]}[
        kind
    ]


def _write(hub_set: HubSet, path: Path, rows: Rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.with_name(f"{path.name}.{hub_set.files}")
    if hub_set.files == "parquet":
        import pyarrow
        import pyarrow.parquet as parquet

        types = {
            "text": pyarrow.string(), "texts": pyarrow.list_(pyarrow.string()), "number": pyarrow.int64(),
            "numbers": pyarrow.list_(pyarrow.int32()),
        }  # fmt: skip
        schema = pyarrow.schema([(name, types[kind]) for name, kind in hub_set.columns.items()])
        parquet.write_table(pyarrow.Table.from_pylist(rows, schema), file)
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
