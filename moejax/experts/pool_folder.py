"""Experts that come to a pool folder, leave it or get another name, each in one step that can be taken back."""

import shutil
from collections.abc import Collection, Iterable
from pathlib import Path

from moejax.experts import checkpoint, links
from moejax.experts import folder as folders
from moejax.experts.change import Change, undoable
from moejax.experts.checkpoint import INDEX, MODEL_CONFIG
from moejax.experts.folder import (
    ADAPTERS_WEIGHTS,
    CONFIG,
    EXTRAS,
    INFO,
    SAMPLES,
    WEIGHTS,
    check_name,
    closest,
    twin,
)
from moejax.experts.journal import is_there, looked_at, make, opened, sync
from moejax.experts.member import Member, OnBase, compared, examine, members
from moejax.types import UserError

FILES = (CONFIG, WEIGHTS, ADAPTERS_WEIGHTS, INFO, EXTRAS, SAMPLES, "README.md", "LICENSE")
"""What is copied; a pickle never is."""


def add(
    pool: Path,
    folder: Path,
    name: str,
    base: OnBase | None = None,
    reserved: Collection[str] = (),
    ignore_saved: bool = False,
) -> Member:
    """Copy an expert's folder into a pool, which is made where there is none, and tell what was found.

    reserved: names that no expert may have; ignore_saved: as `read` takes it. Raises UserError on a bad or taken name,
    on an expert that `examine` refuses, and on a symbolic link that leaves the folder, which itself is never changed.
    """
    _check_name(name, reserved)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    for entry in sorted(folder.iterdir()):
        links.check(entry)
    member = examine(
        folder, name, None if base is None else base._replace(ignore_saved=ignore_saved), ignore_saved
    )
    pool.mkdir(parents=True, exist_ok=True)
    with opened(pool) as journal:
        _check_free(name, (path.name for path in folders.expert_folders(pool)), pool)
        _copy(folder, journal.staged)
        if examine(journal.staged, name).content != member.content:
            raise UserError(
                f"{folder} changed while it was copied: wait until it is whole, then add it again"
            )
        others = members(pool)
        make(journal, "add", name, member.content)
    return compared([*others, member])[-1]


def drop(pool: Path, name: str) -> tuple[Change, Path]:
    """Take an expert out of a pool; gives where it is kept. Raises UserError when there is no such expert."""
    _folder(pool, name)  # before a hidden folder is made in what is no pool
    with opened(pool) as journal:
        folder = _folder(pool, name)
        change = make(journal, "drop", name, _content(folder))
        return change, journal.kept(change.n)


def rename(pool: Path, old: str, new: str, reserved: Collection[str] = ()) -> Change:
    """Give an expert another name. Raises UserError when there is no such expert, or the name is bad or taken."""
    _folder(pool, old)
    _check_name(new, reserved)
    with opened(pool) as journal:
        folder = _folder(pool, old)
        if new == old:
            raise UserError(f"{new!r} is the expert's name already: give another one")
        _check_free(new, (path.name for path in folders.expert_folders(pool) if path != folder), pool)
        return make(journal, "rename", old, _content(folder), to=new)


def undo(pool: Path) -> tuple[Change, Change]:
    """Take back the last change that still stands; gives that change, and the one that took it back.

    Raises UserError when no change stands, or when somebody moved the folders by hand since.
    """
    if undoable(history(pool)) is None:
        raise UserError(f"{pool}: there is nothing to undo, no change of its history stands")
    with opened(pool) as journal:
        last = undoable(journal.changes)
        if last is None:
            raise UserError(f"{pool}: another command was quicker, there is nothing left to undo")
        name, to = (last.name, None) if last.to is None else (last.to, last.name)
        content = _content(journal.move(last)[1])
        return last, make(journal, "undo", name, content, to, last.n)


def look(pool: Path, base: OnBase | None = None) -> tuple[Member, ...]:
    """The experts of a pool folder, those too that cannot be read. Raises UserError while another command is at it."""
    with looked_at(pool):
        return members(pool, base)


def history(pool: Path) -> tuple[Change, ...]:
    """The changes of a pool folder, the first one first. Raises UserError as `look` does, and on a damaged history."""
    with looked_at(pool) as journal:
        return journal.changes


def _check_name(name: str, reserved: Iterable[str]) -> None:
    check_name(name)
    if name.startswith("."):
        raise UserError(f"{name!r} cannot name an expert: folders that begin with a dot are passed over")
    if any(twin(name) == twin(other) for other in reserved):
        raise UserError(f"{name!r} cannot name an expert: a method has that name, and tables show both")


def _check_free(name: str, others: Iterable[str], pool: Path) -> None:
    for other in others:
        if name == other:
            raise UserError(
                f"{pool} has an expert {name!r} already: give another name, or drop that one first"
            )
        if twin(name) == twin(other):
            raise UserError(
                f"{pool} has an expert {other!r}, from which {name!r} differs only in case "
                "or in how accents are encoded: give another name"
            )
    if is_there(pool / name):
        raise UserError(f"{pool / name} is a file: give another name, or move it away")


def _folder(pool: Path, name: str) -> Path:
    """The folder of an expert that is there."""
    if not pool.is_dir():
        raise UserError(f"{pool}: no such folder of experts")
    names = [path.name for path in folders.expert_folders(pool)]
    if name not in names:
        raise UserError(f"{pool} has no expert {name!r}{closest(name, names)}")
    return pool / name


def _content(folder: Path) -> str | None:
    """The content of an expert, None where it cannot be read: what is broken may leave, too."""
    try:
        return examine(folder, "any").content
    except (UserError, OSError):
        return None


def _of_checkpoint(folder: Path) -> list[str]:
    """The files of a whole model; a base's tokenizer is not of them."""
    if (folder / CONFIG).exists() or not (folder / MODEL_CONFIG).exists():
        return []
    return [MODEL_CONFIG, INDEX, *(file.name for file in checkpoint.files(folder))]


def _copy(folder: Path, new: Path) -> None:
    new.mkdir(parents=True)
    for name in (*FILES, *_of_checkpoint(folder)):
        if (folder / name).is_file():
            shutil.copyfile(folder / name, new / name)
            sync(new / name)
    sync(new)
