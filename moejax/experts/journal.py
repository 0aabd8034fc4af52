"""The hidden folder of a pool: its lock, its history, what was taken out, and how a change is made whole.

POOL/.moejax/lock           held by the one command that works on the pool
POOL/.moejax/history.jsonl  a line for each change, in order; lines are added, never altered
POOL/.moejax/intent.json    the line of the change that is under way
POOL/.moejax/new/expert     the copy of an expert that is being added
POOL/.moejax/kept/N         the expert that change N took out of the pool

A change writes its intent, moves one folder, writes its line, and removes the intent. Whoever finds an intent looks
where the folder is: at its old place, the change has not happened; at its new one, only the line is owed.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from moejax.experts.change import Change, as_line, parse, read_changes
from moejax.experts.lock import locked
from moejax.types import UserError

HIDDEN = ".moejax"


@dataclass(frozen=True)
class Journal:
    """A pool, and its changes so far."""

    pool: Path
    changes: tuple[Change, ...]

    @property
    def hidden(self) -> Path:
        """The hidden folder."""
        return self.pool / HIDDEN

    @property
    def staged(self) -> Path:
        """Where an expert is copied before it is added."""
        return self.hidden / "new" / "expert"

    def kept(self, n: int) -> Path:
        """Where change n puts what it takes out of the pool."""
        return self.hidden / "kept" / str(n)

    def move(self, change: Change) -> tuple[Path, Path]:
        """The folder that a change moves: from where, to where."""
        here = self.pool / change.name
        if change.undoes is not None:
            undone = self.changes[change.undoes - 1]
            start, end = self.move(undone)
            return (end, self.kept(change.n)) if undone.operation == "add" else (end, start)
        if change.operation == "add":
            return self.staged, here
        return here, self.kept(change.n) if change.to is None else self.pool / change.to

    def has_happened(self, change: Change) -> bool:
        """Whether the folder was moved; what lies in `kept` was put there by nobody else."""
        start, end = self.move(change)
        return is_there(end) and (end.parent == self.kept(0).parent or not is_there(start))


@contextmanager
def opened(pool: Path) -> Iterator[Journal]:
    """Hold a pool, what a killed command left mended; after an error, what this one left too.

    Raises UserError when there is no such folder, another process holds it, or its history is damaged.
    """
    if not pool.is_dir():
        raise UserError(f"{pool}: no such folder of experts")
    hidden = pool / HIDDEN
    if hidden.is_symlink():
        raise UserError(f"{hidden} is a symbolic link: put the folder itself there")
    hidden.mkdir(exist_ok=True)
    for entry in sorted(os.scandir(hidden), key=lambda entry: entry.name):
        if entry.is_symlink():
            raise UserError(f"{entry.path} is a symbolic link, which no pool command makes: remove it")
    with locked(hidden / "lock", pool, "wait for it, or end it"):
        journal = _mended(pool)
        try:
            yield journal
        except BaseException:
            with suppress(OSError, UserError):
                _mended(pool)
            raise


@contextmanager
def looked_at(pool: Path) -> Iterator[Journal]:
    """Hold a pool only to look at it: one without a history, or that may not be written, is seen as it lies there."""
    if os.access(pool / HIDDEN, os.W_OK):
        with opened(pool) as journal:
            yield journal
        return
    if not pool.is_dir():
        raise UserError(f"{pool}: no such folder of experts")
    yield Journal(pool, read_changes(pool / HIDDEN / "history.jsonl"))


def make(
    journal: Journal,
    operation: str,
    name: str,
    content: str | None,
    to: str | None = None,
    undoes: int | None = None,
) -> Change:
    """Make one change whole, once; the pool is held. Raises UserError when a folder is not where it should be."""
    time = datetime.now(UTC).isoformat(timespec="seconds")
    change = Change(len(journal.changes) + 1, operation, name, content, time, to, undoes)
    start, end = journal.move(change)
    for path, wrong in ((start, not is_there(start)), (end, is_there(end))):
        if wrong:
            raise UserError(
                f"{path} is {'there' if path == end else 'not there'}, so {operation} {name!r} cannot be done: "
                f"move it {'away' if path == end else 'back'}"
            )
    journal.kept(0).parent.mkdir(exist_ok=True)
    part = journal.hidden / "intent.part"
    part.write_bytes(as_line(change))
    sync(part)
    os.replace(part, journal.hidden / "intent.json")
    sync(journal.hidden)
    os.rename(start, end)
    sync(start.parent)
    sync(end.parent)
    _finish(journal, change)
    return change


def _finish(journal: Journal, change: Change) -> None:
    """Write the line of a change that has happened, and forget the intent."""
    with open(journal.hidden / "history.jsonl", "ab") as file:
        file.write(as_line(change) + b"\n")
    sync(journal.hidden / "history.jsonl")
    (journal.hidden / "intent.json").unlink()


def _mended(pool: Path) -> Journal:
    """The journal, after what a killed command left is finished or cleared; doing it twice is doing it once."""
    history, intent = pool / HIDDEN / "history.jsonl", pool / HIDDEN / "intent.json"
    _end_line(history, torn=intent.exists())
    journal = Journal(pool, read_changes(history))
    if intent.exists():
        text, changes = intent.read_bytes(), journal.changes
        if changes and text == as_line(changes[-1]):
            intent.unlink()
        elif journal.has_happened(change := parse(text, changes, str(intent))):
            _finish(journal, change)
            journal = Journal(pool, (*changes, change))
        else:
            intent.unlink()
    (pool / HIDDEN / "intent.part").unlink(missing_ok=True)
    if (pool / HIDDEN / "new").exists():
        shutil.rmtree(pool / HIDDEN / "new")
    return journal


def _end_line(history: Path, torn: bool) -> None:
    """Let the last line end: under an intent it is torn and will be written anew, else somebody cut its end off."""
    data = history.read_bytes() if history.exists() else b""
    if data and not data.endswith(b"\n"):
        if torn:
            os.truncate(history, data.rfind(b"\n") + 1)
        else:
            with open(history, "ab") as file:
                file.write(b"\n")


def is_there(path: Path) -> bool:
    """Whether a folder lists exactly this name; a file system that ignores case would say yes to more."""
    return path.parent.is_dir() and path.name in os.listdir(path.parent)


def sync(path: Path) -> None:
    """Bring a file or folder to the disk, so that a power cut does not undo it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
