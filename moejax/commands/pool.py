"""`python -m moejax pool`: experts come to a folder, leave it, get another name, and every step can be taken back."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from moejax.commands.parse import parse
from moejax.commands.pool_listing import as_json, changes, table
from moejax.experts import pool_folder
from moejax.experts.member import Member, OnBase
from moejax.experts.read import own_name
from moejax.experts.report import line
from moejax.methods import TABLE
from moejax.types import UserError

PROG = "python -m moejax pool"
Pool = tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="POOL")]]
Name = tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="NAME")]]
Source = Annotated[str, tyro.conf.arg(metavar="SOURCE", help_behavior_hint="")]


@dataclass(frozen=True)
class Add:
    """Check an expert and copy its folder into a pool."""

    pool: Pool
    """the folder of experts; it is made where there is none"""
    folder: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="FOLDER")]]
    """the expert, as PEFT saves it"""
    name: Annotated[str, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = ""
    """Its name in the pool; the folder's own unless given."""
    base: Source = ""
    """The base to check it against: a Hugging Face folder, or `minilm`."""
    allow_base_mismatch: bool = False
    """Take it although it says that it was trained on another base."""
    ignore_saved_modules: bool = False
    """Take its LoRAs although it holds whole trained modules too (`modules_to_save`), which nothing here reads."""


@dataclass(frozen=True)
class Drop:
    """Take an expert out of a pool; its folder is kept within the pool's hidden one."""

    pool: Pool
    """the folder of experts"""
    name: Name
    """the expert"""


@dataclass(frozen=True)
class Rename:
    """Give an expert of a pool another name."""

    pool: Pool
    """the folder of experts"""
    old: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="OLD")]]
    """the expert"""
    new: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="NEW")]]
    """its new name"""


@dataclass(frozen=True)
class Undo:
    """Take back the last change that still stands; say it again for the one before."""

    pool: Pool
    """the folder of experts"""


@dataclass(frozen=True)
class List:
    """The experts of a pool, with content, size and licence, and which have the same content."""

    pool: Pool
    """the folder of experts"""
    base: Source = ""
    """A base to read them with, and print what was found: a Hugging Face folder, or `minilm`."""
    allow_base_mismatch: bool = False
    """Read those too that say that they were trained on another base."""
    history: bool = False
    """The changes of the pool instead."""
    json: bool = False
    """As JSON."""


def main(argv: Sequence[str]) -> None:
    """Do what the words ask for. Raises UserError for a wrong operation or option, and for what is refused."""
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage())
        return
    if argv[0] not in OPERATIONS:
        raise UserError(
            f"pool has no operation {argv[0]!r}, only {', '.join(OPERATIONS)} (see {PROG} --help)"
        )
    kind, do = OPERATIONS[argv[0]]
    options: Any = parse(kind, argv[1:], f"{PROG} {argv[0]}", str(kind.__doc__))
    try:
        do(options, Path(options.pool))
    except OSError as error:
        raise UserError(
            f"{error.filename or options.pool}: {error.strerror or error}: "
            f"mend that, then look with {PROG} list {options.pool}"
        ) from error


def _usage() -> str:
    lines = [f"  {name:8} {kind.__doc__}" for name, (kind, _) in OPERATIONS.items()]
    return (
        f"usage: {PROG} OPERATION POOL …\n\n"
        + "\n".join(lines)
        + f"\n\n{PROG} OPERATION --help has the options."
    )


def _add(options: Add, pool: Path) -> None:
    folder = Path(options.folder)
    base = _on_base(options.base, options.allow_base_mismatch)
    name = options.name or own_name(folder)
    member = pool_folder.add(pool, folder, name, base, TABLE, options.ignore_saved_modules)
    _show(member, "added ")


def _drop(options: Drop, pool: Path) -> None:
    _, kept = pool_folder.drop(pool, options.name)
    print(f"dropped {options.name}: kept in {kept}")


def _rename(options: Rename, pool: Path) -> None:
    pool_folder.rename(pool, options.old, options.new, TABLE)
    print(f"renamed {options.old} to {options.new}")


def _undo(options: Undo, pool: Path) -> None:
    last, _ = pool_folder.undo(pool)
    print(f"undid change {last.n}: {last.operation} {last.name}" + (f" to {last.to}" if last.to else ""))


def _list(options: List, pool: Path) -> None:
    if options.history:
        found = pool_folder.history(pool)
        print(json.dumps([asdict(change) for change in found], indent=1) if options.json else changes(found))
        return
    some = pool_folder.look(pool, _on_base(options.base, options.allow_base_mismatch))
    if options.json:
        print(json.dumps([as_json(member) for member in some], indent=1))
        return
    print(table(some))
    for member in some:
        if options.base and member.report is not None:
            _show(member)


def _show(member: Member, what: str = "") -> None:
    """The load report of an expert, and its warnings."""
    if member.report is not None:
        print(what + line(member.report))
        for warning in member.report.warnings:
            print(f"warning: {warning}")


def _on_base(source: str, allow_mismatch: bool) -> OnBase | None:
    """What reading needs to know of a base, None where none was named."""
    if not source:
        if allow_mismatch:
            raise UserError("--allow-base-mismatch says nothing without --base: name the base")
        return None
    from moejax.models import minilm, weights  # they take a while to import

    base = weights.load(minilm.installed() if source == "minilm" else source)
    return OnBase(base.sites, base.shapes, base.fingerprint, allow_mismatch, base.homes, ignore_saved=True)


OPERATIONS = {
    "add": (Add, _add),
    "drop": (Drop, _drop),
    "list": (List, _list),
    "rename": (Rename, _rename),
    "undo": (Undo, _undo),
}
