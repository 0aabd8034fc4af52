"""The changes of a pool folder: one line of JSON each."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from moejax.types import UserError


@dataclass(frozen=True)
class Change:
    """The n-th change of a pool: `add`, `drop`, `rename`, or the `undo` of an earlier one.

    name: of the expert before it; content: its `modules_hash`, None where it cannot be read; time: UTC, ISO 8601;
    to: its name after a rename, or after one is undone; undoes: the n of the change that an undo takes back.
    """

    n: int
    operation: str
    name: str
    content: str | None
    time: str
    to: str | None = None
    undoes: int | None = None


def as_line(change: Change) -> bytes:
    """The line of a change, without the fields that it has no use for."""
    fields = asdict(change)
    return json.dumps(
        {key: fields[key] for key in fields if key == "content" or fields[key] is not None}
    ).encode()


def parse(text: bytes, before: Sequence[Change], where: str) -> Change:
    """The change that a line tells. Raises UserError on a line that no command wrote after those `before` it."""
    try:
        change = Change(**json.loads(text.decode()))
    except (ValueError, TypeError, RecursionError):
        change = None
    if change is None or not _sound(change, before):
        raise UserError(
            f"{where} is not what a pool command wrote: restore the file, or move it out of the pool"
        )
    return change


def read_changes(path: Path) -> tuple[Change, ...]:
    """All changes of a file, a last line without its end left out. Raises UserError as `parse` does."""
    changes: list[Change] = []
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    for number, text in enumerate(lines, 1):
        changes.append(parse(text, changes, f"{path}, line {number}"))
    return tuple(changes)


def undoable(changes: Sequence[Change]) -> Change | None:
    """The last change that is not yet undone."""
    standing: list[Change] = []
    for change in changes:
        if change.undoes is None:
            standing.append(change)
        else:
            standing.pop()
    return standing[-1] if standing else None


def _sound(change: Change, before: Sequence[Change]) -> bool:
    """Whether it may be believed: what it says moves a folder."""
    names = [change.name] if change.to is None else [change.name, change.to]
    if not all(isinstance(name, str) and _is_plain(name) for name in names):
        return False
    if type(change.n) is not int or change.n != len(before) + 1:
        return False
    if not isinstance(change.time, str) or not isinstance(change.content, str | None):
        return False
    if change.operation == "undo":
        last = undoable(before)
        return last is not None and type(change.undoes) is int and change.undoes == last.n
    if change.operation not in ("add", "drop", "rename") or change.undoes is not None:
        return False
    return (change.operation == "rename") == (change.to is not None)


def _is_plain(name: str) -> bool:
    return bool(name) and not name.startswith(".") and not set(name) & {"/", "\0"}
