"""Experts: every one that cannot be read and why, and for the others what loading them found."""

from pathlib import Path
from typing import NamedTuple

from moejax.commands import check_base
from moejax.commands.findings import Findings, plural
from moejax.experts import extras
from moejax.experts.expert import Expert
from moejax.experts.folder import EXTRAS, check_names, expert_folders, open_tensors
from moejax.experts.member import content_of
from moejax.experts.pool import pool_of
from moejax.experts.read import read, read_modules
from moejax.experts.report import LoadReport, compare, line
from moejax.models.base import Base
from moejax.types import UserError

NO_BASE = "no base is at hand (--base): modules, shapes, hash and fingerprint were not compared with one"


class Looked(NamedTuple):
    """One expert that can be read: what loading found, what tells its content from another's, the expert itself."""

    report: LoadReport
    digest: str
    expert: Expert | None


def expert(folder: Path, base: Base | None) -> Findings:
    """One expert's folder, against a base if there is one."""
    found = Findings(f"expert {folder}")
    looked = _look(folder, base, found)
    if looked is not None:
        _report([looked], [folder], found)
    if base is None:
        found.warnings.append(NO_BASE)
    return found


def experts(folder: Path, base: Base | None) -> Findings:
    """A folder of experts: each of them, and all against each other."""
    members = expert_folders(folder)
    base = base or check_base.named_by(members)
    found = Findings(f"folder of experts {folder}")
    try:
        check_names(path.name for path in members)
    except UserError as error:
        found.faults.append(f"{folder}: {error}")
    seen = [(path, looked) for path in members if (looked := _look(path, base, found)) is not None]
    found.what += f": {len(seen)} of {plural(len(members), 'expert')} can be read"
    if seen:
        _report([looked for _, looked in seen], [path for path, _ in seen], found)
    if not members:
        found.faults.append(
            f"{folder}: no expert in it: each is a sub-folder with adapter_config.json or config.json"
        )
    if base is None:
        found.warnings.append(NO_BASE)
    return found


def _look(folder: Path, base: Base | None, found: Findings) -> Looked | None:
    """An expert that can be read; what keeps it from being read is a fault, and so is damage of its extras."""
    try:
        if base is not None:
            one, report = read(folder, base.sites, base.shapes, base.fingerprint, homes=base.homes)
            looked = Looked(report, one.info["hash"], one)
        else:
            found_there = read_modules(folder)
            digest = content_of(folder, found_there.info, found_there.parts)
            looked = Looked(found_there.report._replace(hash=digest), digest, None)
    except UserError as error:
        found.faults.append(str(error))
        return None
    try:
        for name in sorted(extras.names(folder)):
            _read_extra(folder, name, base, looked.expert)
    except UserError as error:
        found.faults.append(str(error))
    return looked


def _read_extra(folder: Path, name: str, base: Base | None, one: Expert | None) -> None:
    """Read an extra and forget it. Raises UserError when it is damaged."""
    if base is not None and one is not None:
        pool_of([one], base.sites, base.shapes, base.layers, folders=[folder]).allow(name).extra(name)
    elif name == "samples":
        extras.read(folder, name, {}, {})
    else:
        with open_tensors(folder / EXTRAS) as tensors:
            for key in tensors.names:
                tensors.read(key)


def _report(seen: list[Looked], folders: list[Path], found: Findings) -> None:
    """The load report of each, against the median where there is more than one."""
    reports = [looked.report for looked in seen]
    if len(seen) > 1:
        reports = compare(reports, [looked.digest for looked in seen])
    for report, folder in zip(reports, folders, strict=True):
        found.lines.append(line(report) + _extras(folder))
        found.lines += (f"  targeted without weights: {module}" for module in report.unmatched[:3])
        found.lines += (f"  zero: {tensor}" for tensor in report.zero[:3])
        found.warnings += report.warnings


def _extras(folder: Path) -> str:
    try:
        names = sorted(extras.names(folder))
    except UserError:
        return ""  # told as a fault already
    return f", extras {', '.join(names)}" if names else ""
