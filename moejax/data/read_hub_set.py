"""Tasks from the files of a published set, by the columns that it really has: `--data hub:NAME`."""

import gzip
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from moejax.data.folder import named
from moejax.data.hub_sets import SETS, HubSet
from moejax.data.tasks import Row, Task
from moejax.types import UserError

HELD_BACK, MOST = (
    10,
    10_000,
)  # of so many rows one is validation, and at most so many, where a set has no splits
ROWS = 4096  # of a Parquet file that are in memory at once
Limits = Mapping[str, int | None]


def sets_of(source: str) -> dict[str, HubSet]:
    """The sets that `hub:NAME+NAME` names. Raises UserError for a name that is not in the table."""
    names = source.removeprefix("hub:").split("+")
    unknown = next((name for name in names if name not in SETS), None)
    if unknown is not None:
        raise UserError(
            f"data.source is {source!r}: {unknown!r} is no published set, expected {', '.join(SETS)}"
        )
    return {name: SETS[name] for name in names}


def read_hub_sets(source: str, folder: str | Path, names: Sequence[str], limits: Limits) -> tuple[Task, ...]:
    """The named tasks, each from the first of the sets that has it, in this order.

    limits: split -> most rows of a task, evenly spaced, so that every file and template has its share; None: all.
    Raises UserError where a set has no folder or no files, where a file cannot be read, lacks a column or has another
    kind of value, where an answer is not among its options, and where no set has a task.
    """
    found: dict[str, Task] = {}
    for name, hub_set in sets_of(source).items():
        wanted = [one for one in names if one not in found]
        found |= _read(hub_set, Path(folder) / name, wanted, limits)
    return tuple(named(name, found, f"{folder} ({source})") for name in names)


def plain(name: str) -> str:
    """A task's name as a file may be called: what is no letter, digit, dot or dash becomes an underscore."""
    return re.sub(r"[^\w.-]", "_", name)


def _read(hub_set: HubSet, folder: Path, names: Sequence[str], limits: Limits) -> dict[str, Task]:
    """The named tasks that one set has."""
    rows: dict[str, dict[str, list[Row]]] = {}
    for path in _files(hub_set, folder):
        own = _owner(hub_set, folder, path, names)
        if own is None:
            continue
        for at, raw in _rows(hub_set, path):
            if hub_set.keep and _value(raw, hub_set.keep[0], at) not in hub_set.keep[1]:
                continue
            task = own or plain(_value(raw, hub_set.task, at))
            if task in names and (row := _row(hub_set, raw, at)) is not None:
                rows.setdefault(task, {}).setdefault(_split(hub_set, path, raw, at), []).append(row)
    return {name: _task(name, hub_set, parts, limits) for name, parts in rows.items()}


def _files(hub_set: HubSet, folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {folder}: put the files of {hub_set.where} there (docs/recipes.md)"
        )
    every = [
        path for path in sorted(folder.rglob("*"))
        if path.name.removesuffix(".gz").endswith(f".{hub_set.files}") and path.is_file()
    ]  # fmt: skip
    if not every:
        raise UserError(f"{folder} has no .{hub_set.files} file: put the files of {hub_set.where} there")
    return [path for path in every if not _left_out(hub_set, path)]


def _left_out(hub_set: HubSet, path: Path) -> bool:
    folder, stem = _place(path)
    return any(part.endswith(end) for part in (stem, folder.name) for end in hub_set.skip)


def _place(path: Path) -> tuple[Path, str]:
    """Folder and stem of a file: `train` of train-00000-of-00002.parquet, train.jsonl.gz and train/0000.parquet."""
    name = re.sub(r"\.(parquet|jsonl?)(\.gz)?$", "", path.name)
    stem = re.sub(r"-\d+-of-\d+.*$", "", name)
    return (path.parent.parent, path.parent.name) if stem.isdigit() else (path.parent, stem)


def _split(hub_set: HubSet, path: Path, raw: Mapping[str, Any], at: str) -> str:
    """The split that a column says, or else the file's name; train where neither does."""
    if not hub_set.split:
        return hub_set.splits.get(_place(path)[1], "train")
    said = _value(raw, hub_set.split, at)
    if said not in hub_set.splits:
        raise UserError(f"{at}: {hub_set.split} is {said!r}, expected one of {', '.join(hub_set.splits)}")
    return hub_set.splits[said]


def _owner(hub_set: HubSet, folder: Path, path: Path, names: Sequence[str]) -> str | None:
    """The task of a whole file; empty: its rows say it; None: of none that is asked for."""
    if hub_set.task:
        return ""
    home, stem = _place(path)
    own = plain((home.name if stem in hub_set.splits and home != folder else stem).split(":")[0])
    if hub_set.templates:
        fitting = [name for name in names if own == name or own.startswith(f"{name}_")]
        return max(fitting, key=len, default=None)
    return own if own in names else None


def _rows(hub_set: HubSet, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where it stands, columns) of each row of a file."""
    if hub_set.files == "parquet":
        yield from _parquet(hub_set, path)
        return
    try:
        raw = path.read_bytes()
        lines = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8").split("\n")
    except (OSError, EOFError, ValueError) as fault:
        raise UserError(f"{path} cannot be read ({fault}): fetch it again") from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                said = json.loads(line)
            except ValueError as fault:
                raise UserError(f"{path}:{number}: not valid JSON: {fault}") from None
            if not isinstance(said, dict):
                raise UserError(f"{path}:{number}: expected an object with {', '.join(hub_set.columns)}")
            yield f"{path}:{number}", said


def _parquet(hub_set: HubSet, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow
    import pyarrow.parquet as parquet

    used = [
        hub_set.input,
        hub_set.target,
        hub_set.task,
        hub_set.split,
        hub_set.choices,
        (hub_set.keep or ("",))[0],
    ]
    try:
        file = parquet.ParquetFile(path)
        columns = [name for name in file.schema_arrow.names if name in used]
        number = 0
        for part in file.iter_batches(ROWS, columns=columns):
            for row in part.to_pylist():
                number += 1
                yield f"{path}, row {number}", row
    except (pyarrow.ArrowException, OSError) as fault:
        first = str(fault).split("\n")[0]
        raise UserError(f"{path} cannot be read ({first}): fetch it again") from None


def _value(raw: Mapping[str, Any], column: str, at: str) -> str:
    """The text in a column."""
    if column not in raw:
        raise UserError(f"{at}: there is no column {column!r}; it has {', '.join(sorted(raw))}")
    value = raw[column]
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        value = max(value, key=len, default="")
    if not isinstance(value, str):
        raise UserError(f"{at}: expected {column} to be a text, got {value!r}")
    return value


def _row(hub_set: HubSet, raw: Mapping[str, Any], at: str) -> Row | None:
    """A row; None where text or answer is empty, which the papers' code leaves out too."""
    text, target = _value(raw, hub_set.input, at).strip(), _value(raw, hub_set.target, at).strip()
    if not text or not target:
        return None
    given = raw.get(hub_set.choices) or ()  # a template without options has no such column
    choices = tuple(dict.fromkeys(str(one).strip() for one in given))
    if choices and target not in choices:
        raise UserError(
            f"{at}: {hub_set.target} is {target!r}, which is not among its {hub_set.choices}: {', '.join(choices[:8])}"
        )
    return Row(text, hub_set.instruction, target, choices or None)


def _task(name: str, hub_set: HubSet, parts: Mapping[str, list[Row]], limits: Limits) -> Task:
    """The task of these rows: where none is for validation, a tenth of train is; where none is for test, those are.

    Its kind is classification where every row has options.
    """
    train, validation = parts.get("train", []), parts.get("validation", [])
    if not validation:
        held = range(0, len(train), HELD_BACK)[:MOST]
        validation, train = [train[i] for i in held], [row for i, row in enumerate(train) if i not in held]
    whole = {"train": train, "validation": validation, "test": parts.get("test", validation)}
    rows = {split: tuple(_spaced(some, limits.get(split))) for split, some in whole.items()}
    every = [row for some in rows.values() for row in some]
    choosing = bool(every) and all(len(row.choices or ()) > 1 for row in every)
    if not choosing:
        rows = {split: tuple(replace(row, choices=None) for row in some) for split, some in rows.items()}
    return Task(name, "classification" if choosing else "generation", "", hub_set.instruction, rows)


def _spaced(rows: list[Row], most: int | None) -> list[Row]:
    if most is None or len(rows) <= most:
        return rows
    return [rows[i * len(rows) // most] for i in range(most)]
