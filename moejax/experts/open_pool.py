"""A pool whose factors stay on disk: headers alone decide the shapes, and a few slots hold what is used."""

from collections.abc import Callable, Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from moejax.experts import bank as banks
from moejax.experts import folder as folders
from moejax.experts import peft_config
from moejax.experts.adapters_config import is_adapters
from moejax.experts.bank import Bank
from moejax.experts.expert import Expert, SiteKey
from moejax.experts.folder import CONFIG, PICKLE, WEIGHTS
from moejax.experts.lora import scale_of
from moejax.experts.member import OnBase
from moejax.experts.pool import Pool, check_distinct
from moejax.experts.read import BY_PEFT, info_of, no_pickle, read
from moejax.experts.read_peft import Outline, outlines
from moejax.experts.report import LoadReport, compare
from moejax.experts.slots import Slots
from moejax.experts.stacks import Stack
from moejax.types import UserError


class Outlined(NamedTuple):
    """An expert without its factors: what `moejax.json` says, what it has at each site, the report."""

    info: dict[str, Any]
    parts: Mapping[SiteKey, Outline]
    report: LoadReport


def open_pool(
    experts: Sequence[tuple[str, Path]],
    base: OnBase,
    layers: int,
    slots: int,
    capacity: int | None = None,
    room: Callable[[int], int] = int,
) -> tuple[Pool, tuple[LoadReport, ...]]:
    """The pool of these experts, name and folder, of which `slots` at a time are in the bank of `Pool.slots`.

    `Pool.bank` says of all experts where they stand and with which scale, and has no factors. capacity: its expert
    slots; room: largest rank found -> rank of the slots. An expert whose folder records no hash is read once, alone.
    Norms of the reports are NaN. Raises UserError as `read` does, on values when they are brought in, and for experts
    that are no LoRAs.
    """
    names, at = tuple(name for name, _ in experts), dict(experts)
    check_distinct(names)
    found = [_outlined(folder, name, base) for name, folder in experts]
    where: dict[str, set[int]] = {}
    for one in found:
        for path, layer in one.parts:
            where.setdefault(path, set()).add(layer)
    every = [(path, part) for one in found for (path, _), part in one.parts.items()]
    rank = room(max((part.rank for _, part in every), default=1))
    biased = {path for path, part in every if part.biased}
    small = banks.stack([], base.shapes, layers, slots, rank, where, biased)
    hashes = {name: str(one.info["hash"]) for name, one in zip(names, found, strict=True)}

    def reader(name: str) -> Expert:
        expert, report = _read(at[name], name, base)
        if report.hash != hashes[name]:
            raise UserError(f"{at[name]} has changed since the pool was opened: start again")
        return expert

    pool = Pool(
        names, tuple(one.info for one in found), _hollow(small, found, capacity or len(names)), base.sites,
        tuple(folder for _, folder in experts), slots=Slots(small, reader),
    )  # fmt: skip
    return pool, compare([one.report for one in found], [*hashes.values()])


def _outlined(folder: Path, name: str, base: OnBase) -> Outlined:
    """An expert's folder as far as it can be known without its factors."""
    folders.check_name(name)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    raw = folders.read_json(folder / CONFIG) if (folder / CONFIG).exists() else {}
    if not raw or is_adapters(raw):
        raise UserError(
            f"{folder} is no LoRA of PEFT, and pool_slots holds LoRAs alone: leave pool_slots out"
        )
    weights, of_modules = folder / WEIGHTS, {m: base.shapes[path] for m, (path, _) in base.sites.items()}
    config = peft_config.parse(raw, str(folder / CONFIG), base.ignore_saved)
    info, warnings = info_of(folder, "lora", base.fingerprint, base.allow_mismatch)
    no_pickle(weights, folder / PICKLE, BY_PEFT)
    with folders.open_tensors(weights) as tensors:
        parts = outlines(tensors, of_modules, config, str(folder / CONFIG))
    if info.get("hash") is None:
        info["hash"] = _read(folder, name, base)[1].hash
    scales = {module: scale_of(part.rank, part.alpha, part.rslora) for module, part in parts.items()}
    report = LoadReport(name, tuple(parts), (), (), scales, nan, warnings=warnings, file=weights)
    sites = {base.sites[module]: part for module, part in parts.items()}
    return Outlined(info, sites, report._replace(hash=str(info["hash"])))


def _read(folder: Path, name: str, base: OnBase) -> tuple[Expert, LoadReport]:
    sites, shapes, fingerprint, allow, homes, ignore = base
    return read(folder, sites, shapes, fingerprint, allow, name, homes, ignore)


def _hollow(small: Bank, found: Sequence[Outlined], capacity: int) -> Bank:
    """The bank of all experts, without factors: scale and present [s, e], and the slots of layers of the small one."""
    if capacity < len(found):
        raise UserError(f"capacity {capacity} is too small for {len(found)} experts: raise it")
    slot = {path: np.asarray(stack.slot) for path, stack in small.sites.items()}
    scale = {p: np.zeros((stack.scale.shape[0], capacity), np.float32) for p, stack in small.sites.items()}
    present = {path: values > 0 for path, values in scale.items()}
    for e, one in enumerate(found):
        for (path, layer), part in one.parts.items():
            scale[path][slot[path][layer], e] = scale_of(part.rank, part.alpha, part.rslora)
            present[path][slot[path][layer], e] = True
    none: Any = None
    sites: dict[str, Any] = {
        path: Stack(none, none, jnp.asarray(scale[path]), jnp.asarray(present[path]), jnp.asarray(slot[path]))
        for path in small.sites
    }
    return Bank(sites, jnp.arange(capacity) < len(found))
