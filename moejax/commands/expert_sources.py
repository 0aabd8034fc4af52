"""Experts as a command line names them, here or on the hub, in a bank that has room for more."""

from collections.abc import Sequence
from pathlib import Path

from moejax.experts import part
from moejax.experts.checkpoint import MODEL_CONFIG
from moejax.experts.folder import CONFIG, expert_folders
from moejax.experts.member import OnBase
from moejax.experts.open_pool import open_pool
from moejax.experts.pool import Pool, pool_of
from moejax.experts.read import own_name, read
from moejax.experts.report import compare
from moejax.models.base import Base
from moejax.models.folder import ADAPTER, locate
from moejax.models.prompts import bucket
from moejax.parallel.mesh import whole
from moejax.types import UserError

FEWEST = 4  # expert slots of the smallest bank


def named(experts: str) -> list[tuple[str, Path]]:
    """Name and folder of each expert: of a folder of them, of one alone, of one on the hub, or of several by commas.

    Raises UserError for what is no folder and no name on the hub, and for a folder without experts.
    """
    found = []
    for source in [experts] if Path(experts).expanduser().is_dir() else experts.split(","):
        if not (source := source.strip()):
            continue
        folder, here = locate(source, ADAPTER), Path(source).expanduser().is_dir()
        if (folder / CONFIG).exists() or (folder / MODEL_CONFIG).exists() or not here:
            found.append((own_name(folder) if here else source.rpartition("/")[2], folder))
            continue
        some = expert_folders(folder)
        if not some:
            raise UserError(
                f"{folder}: no expert in it: each is a sub-folder with {CONFIG} or {MODEL_CONFIG}"
            )
        found += [(own_name(one), one) for one in some]
    return found


def roomy(
    experts: Sequence[tuple[str, Path]], base: Base, allow_base_mismatch: bool, capacity: int, ranks: bool
) -> tuple[Pool, tuple[str, ...]]:
    """The pool of these experts, and warnings: `capacity` slots (0: 4, 8, 16, …), with `ranks` of rank 1, 2, 4, …

    So that one more expert of the same modules, or one less, has the same shapes. Differences of whole checkpoints
    get no room that was not asked for: they are large. Raises UserError as `read` does, and for too few slots.
    """
    allow = allow_base_mismatch
    loaded = [
        read(path, base.sites, base.shapes, base.fingerprint, allow, name, base.homes)
        for name, path in experts
    ]
    some, held = [expert for expert, _ in loaded], len(loaded)
    if capacity and capacity < held:
        raise UserError(f"--capacity {capacity} is too small for {held} experts: raise it")
    large = any(expert.deltas for expert in some)
    most = max((part.rank(one) for expert in some for one in expert.parts.values()), default=1)
    pool = pool_of(
        some, base.sites, base.shapes, base.layers, folders=[path for _, path in experts],
        capacity=whole(capacity or (held if large or not held else bucket(held, FEWEST)), "expert"),
        rank=bucket(most) if ranks else most,
    )  # fmt: skip
    reports = compare([report for _, report in loaded], [info["hash"] for info in pool.infos])
    return pool, tuple(warning for report in reports for warning in report.warnings)


def few_in_memory(
    experts: Sequence[tuple[str, Path]], base: Base, allow_base_mismatch: bool, capacity: int, slots: int
) -> tuple[Pool, tuple[str, ...]]:
    """The same of experts on disk, of which `slots` are in memory at once. Raises UserError as `open_pool`."""
    known = OnBase(base.sites, base.shapes, base.fingerprint, allow_base_mismatch, base.homes)
    capacity = capacity or bucket(len(experts), FEWEST)
    pool, reports = open_pool(experts, known, base.layers, slots, capacity, bucket)
    return pool, tuple(warning for report in reports for warning in report.warnings)
