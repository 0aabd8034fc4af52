"""One expert of a pool folder as it lies there, read with a base or, as far as that goes, without one."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from moejax.experts import extras
from moejax.experts import folder as folders
from moejax.experts.checkpoint import checkpoint_hash
from moejax.experts.content_hash import modules_hash
from moejax.experts.expert import SiteKey
from moejax.experts.folder import EXTRAS, INFO
from moejax.experts.homes import NOWHERE, Homes
from moejax.experts.part import Part, rank
from moejax.experts.read import read, read_modules
from moejax.experts.report import LoadReport, compare
from moejax.types import UserError


class OnBase(NamedTuple):
    """What reading needs to know of a base, as `read` takes it."""

    sites: Mapping[str, SiteKey]
    shapes: Mapping[str, tuple[int, int]]
    fingerprint: str
    allow_mismatch: bool = False
    homes: Homes = NOWHERE
    ignore_saved: bool = False


@dataclass(frozen=True, eq=False)
class Member:
    """An expert of a pool folder, or why it cannot be read.

    content: `content_of`; hash: `content_hash`, where a base was at hand; size: bytes of its files;
    twins: other experts of the pool with the same content.
    """

    name: str
    size: int = 0
    info: Mapping[str, Any] = field(default_factory=dict)
    content: str | None = None
    hash: str | None = None
    ranks: tuple[int, ...] = ()
    report: LoadReport | None = None
    twins: tuple[str, ...] = ()
    error: str | None = None


def examine(folder: Path, name: str, base: OnBase | None = None, ignore_saved: bool = True) -> Member:
    """An expert, checked: all that can be known, with a base as `read` does.

    ignore_saved: of an expert that is read without a base.

    Raises UserError on what `read` refuses, on a recorded hash that is none, and on damaged extras.
    """
    if base is None:
        found = read_modules(folder, name=name, ignore_saved=ignore_saved)
        info, parts, report = found.info, found.parts, found.report
        report = report._replace(warnings=report.warnings + _not_compared(folder, info))
        digest = None
    else:
        sites, shapes, fingerprint, allow, homes, ignore = base
        expert, report = read(folder, sites, shapes, fingerprint, allow, name, homes, ignore)
        info, digest = expert.info, expert.info["hash"]
        parts = dict(zip(report.matched, expert.parts.values(), strict=not expert.rest))
    _check_extras(folder)
    content = content_of(folder, info, parts)
    report = report if report.hash else report._replace(hash=content)
    ranks = tuple(sorted({rank(one) for one in parts.values()} - {0}))
    return Member(name, _size(folder), info, content, digest, ranks, report)


def content_of(folder: Path, info: Mapping[str, Any], parts: Mapping[str, Part]) -> str:
    """What tells an expert's content from another's, the same with a base at hand and without."""
    return checkpoint_hash(folder) if info["kind"] == "delta" else modules_hash(parts)


def members(pool: Path, base: OnBase | None = None) -> tuple[Member, ...]:
    """Every expert of a pool folder, in the order of their names, compared with each other."""
    found = []
    for folder in folders.expert_folders(pool):
        try:
            found.append(examine(folder, folder.name, base))
        except (UserError, OSError) as error:
            found.append(Member(folder.name, _size(folder), error=str(error)))
    return compared(found)


def compared(some: Sequence[Member]) -> tuple[Member, ...]:
    """The same, each that could be read with its twins and with its report held against the others'."""
    whole = [member for member in some if member.report is not None]
    if not whole:
        return tuple(some)
    names: dict[str | None, list[str]] = {}
    for member in whole:
        names.setdefault(member.content, []).append(member.name)
    reports = compare([m.report for m in whole if m.report], [str(m.content) for m in whole])
    held = {member.name: report for member, report in zip(whole, reports, strict=True)}
    return tuple(
        replace(
            member,
            report=held.get(member.name),
            twins=tuple(name for name in names.get(member.content, ()) if name != member.name),
        )
        for member in some
    )


def _not_compared(folder: Path, info: Mapping[str, Any]) -> tuple[str, ...]:
    """The warning that a recorded hash has to wait for a base; one that is no hash is refused at once."""
    recorded = info.get("hash")
    if recorded is None:
        return ()
    if not isinstance(recorded, str) or not re.fullmatch("sha256:[0-9a-f]{64}", recorded):
        raise UserError(f"{folder / INFO}: hash is {recorded!r}: expected sha256: and 64 hexadecimal digits")
    return (f"{folder}: its recorded hash was not compared with its content, which needs --base",)


def _check_extras(folder: Path) -> None:
    """Raise UserError on extras that could not be read later."""
    if (folder / EXTRAS).is_file():
        with folders.open_tensors(folder / EXTRAS) as tensors:
            for name in tensors.names:
                tensors.read(name)
    extras.read(folder, "samples", {}, {})


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
