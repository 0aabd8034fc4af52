"""A pool: experts by name, in one bank, with what else they carry behind permissions."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from moejax.experts import bank as banks
from moejax.experts import extras as extras_
from moejax.experts.bank import Bank
from moejax.experts.content_hash import content_hash
from moejax.experts.expert import Expert, SiteKey
from moejax.experts.folder import check_names, closest, expert_folders
from moejax.experts.homes import NOWHERE, Homes
from moejax.experts.read import read
from moejax.experts.report import LoadReport, compare
from moejax.experts.slots import Slots
from moejax.experts.stacks import kind_of
from moejax.types import AccessDenied, NotApplicable, UserError


@dataclass(frozen=True, eq=False)
class Pool:
    """names[i] is the expert in expert slot i of the bank; further slots are free.

    sites: Hugging Face module -> (path, layer). folders: where extras are read from, None: nowhere.
    held: expert -> extra -> value in memory, before the folder. allowed: the extras that may be read.
    beside: kind -> pool of the same contributors' experts of that kind, which have no part in this one.
    rest: expert -> path of a parameter outside the layers -> its difference to the base, in numpy.
    slots: where the factors stay on disk (`open_pool`), what brings a few of them in; the bank has none then.
    """

    names: tuple[str, ...]
    infos: tuple[dict[str, Any], ...]
    bank: Bank
    sites: Mapping[str, SiteKey]
    folders: tuple[Path | None, ...]
    held: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    allowed: frozenset[str] = frozenset()
    beside: Mapping[str, "Pool"] = field(default_factory=dict)
    rest: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    slots: Slots | None = None

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of its experts, of `part.KINDS`."""
        found = frozenset(kind_of(stack) for stack in self.bank.sites.values())
        return found | {"delta"} if self.rest else found

    @property
    def lowest(self) -> int:
        """The lowest adapted layer; 0 where an expert changes anything outside the layers."""
        return 0 if self.rest else banks.lowest(self.bank)

    def index(self, name: str) -> int:
        """The expert slot of a name. Raises UserError when there is no such expert."""
        if name not in self.names:
            raise UserError(f"the pool has no expert {name!r}{closest(name, self.names)}")
        return self.names.index(name)

    def allow(self, *extras: str) -> "Pool":
        """The same pool, with exactly these extras open to reading."""
        return replace(self, allowed=frozenset(extras))

    def lacking(self, extra: str) -> tuple[str, ...]:
        """The experts without this extra; says nothing of its content, so needs no permission."""
        return tuple(name for name in self.names if extra not in self._extras_of(name))

    def _extras_of(self, name: str) -> list[str]:
        """The names of all extras of an expert."""
        folder = self.folders[self.index(name)]
        return sorted(self.held.get(name, {}).keys() | (extras_.names(folder) if folder else frozenset()))

    def extra(self, extra: str) -> tuple[Any, ...]:
        """One value an expert, in the order of `names`, read now. `mean@ENCODER` is allowed as `mean`.

        Raises AccessDenied when it is not allowed, NotApplicable when an expert lacks it.
        """
        stem = extra.partition("@")[0]
        if not {extra, stem} & self.allowed:
            raise AccessDenied(f"the extra {extra!r} was read, but only {sorted(self.allowed)} are granted")
        lacking = self.lacking(extra)
        if lacking:
            others = [name for name in self._extras_of(lacking[0]) if name.startswith(f"{stem}@")]
            has = f"{others[0]}, made by another encoder, and no {extra}" if others else f"no {extra}"
            raise NotApplicable(f"{lacking[0]} has {has}: its contributor must provide it")
        slots = slots_of(self.bank)
        return tuple(
            self.held[name][extra]
            if extra in self.held.get(name, {})
            else extras_.read(folder, extra, self.sites, slots)  # type: ignore[arg-type]  # None is lacking
            for name, folder in zip(self.names, self.folders, strict=True)
        )

    def stacked_extra(self, extra: str) -> dict[str, Float[Array, "s e ..."]]:
        """An extra by site, stacked along the bank: path -> [s, e, ...], zero where an expert is absent."""
        values = self.extra(extra)
        stacked = {}
        for path, stack in self.bank.sites.items():
            found = {i: np.asarray(value[path]) for i, value in enumerate(values) if path in value}
            shapes = {value.shape[1:] for value in found.values()}
            if len(shapes) > 1:
                raise UserError(f"the experts' {extra} at {path!r} differ in shape: {sorted(shapes)}")
            if not found:
                continue
            present = np.asarray(stack.present)
            whole = np.zeros(present.shape + shapes.pop(), np.float32)
            for i, value in found.items():
                whole[present[:, i], i] = value[present[:, i]]
            stacked[path] = jnp.asarray(whole)
        return stacked

    def with_extras(self, extras: Mapping[str, Mapping[str, Any]]) -> "Pool":
        """The pool with more extras in memory: expert -> extra -> value."""
        for name in extras:
            self.index(name)
        held = {name: {**self.held.get(name, {}), **extras.get(name, {})} for name in self.names}
        return replace(self, held=held)

    def save_extras(self, root: str | Path) -> None:
        """Write the extras in memory into the experts' folders `root/NAME`."""
        for name, values in self.held.items():
            if values:
                own = self._own(self.index(name))
                extras_.write(Path(root) / name, values, self.sites, slots_of(self.bank), own)

    def _own(self, i: int) -> set[SiteKey]:
        """The sites that the expert in slot i adapts."""
        present = {path: np.asarray(stack.present[:, i]) for path, stack in self.bank.sites.items()}
        return {
            (path, layer)
            for path, slots in slots_of(self.bank).items()
            for layer, slot in enumerate(slots)
            if slot >= 0 and present[path][slot]
        }

    def take(self, names: Sequence[str]) -> "Pool":
        """The pool of these experts, in this order, without free slots."""
        index = [self.index(name) for name in names]
        return replace(
            self,
            names=tuple(names),
            infos=tuple(self.infos[i] for i in index),
            bank=banks.take(self.bank, index),
            folders=tuple(self.folders[i] for i in index),
            held={name: self.held[name] for name in names if name in self.held},
            rest={name: self.rest[name] for name in names if name in self.rest},
        )

    def append(self, expert: Expert, folder: Path | None = None) -> "Pool":
        """The pool with one more expert in its first free slot, same shapes. Raises UserError when full."""
        check_names((*self.names, expert.name))
        if expert.name in self.names:
            raise UserError(f"the pool has an expert {expert.name!r} already: rename the new one")
        place = len(self.names)
        if place == banks.size(self.bank):
            raise UserError(f"the pool is full with {place} experts: read it with a larger capacity")
        return replace(
            self,
            names=(*self.names, expert.name),
            infos=(*self.infos, expert.info | {"hash": content_hash(expert.parts, expert.rest)}),
            bank=banks.append(self.bank, expert, jnp.int32(place)),
            folders=(*self.folders, folder),
            rest={**self.rest, **_rest([expert])},
        )


def slots_of(bank: Bank) -> dict[str, np.ndarray]:
    """path -> slot [l], on the host."""
    return {path: np.asarray(stack.slot) for path, stack in bank.sites.items()}


def pool_of(
    experts: Sequence[Expert],
    sites: Mapping[str, SiteKey],
    shapes: Mapping[str, tuple[int, int]],
    layers: int,
    *,
    folders: Sequence[Path | None] | None = None,
    capacity: int | None = None,
    rank: int | None = None,
    where: Mapping[str, Collection[int]] | None = None,
) -> Pool:
    """A pool of experts in memory; capacity, rank and where as in `bank.stack`."""
    names = tuple(expert.name for expert in experts)
    check_distinct(names)
    bank = banks.stack(experts, shapes, layers, capacity, rank, where)
    infos = tuple(expert.info | {"hash": content_hash(expert.parts, expert.rest)} for expert in experts)
    return Pool(names, infos, bank, sites, tuple(folders or [None] * len(names)), rest=_rest(experts))


def check_distinct(names: Sequence[str]) -> None:
    """Raise UserError on a bad name, on two that are equal, and on two that differ only in case."""
    check_names(names)
    if len(set(names)) < len(names):
        raise UserError(f"two experts are named {max(names, key=names.count)!r}: rename one")


def _rest(experts: Sequence[Expert]) -> dict[str, Mapping[str, np.ndarray]]:
    return {expert.name: expert.rest for expert in experts if expert.rest}


def read_pool(
    folder: str | Path,
    sites: Mapping[str, SiteKey],
    shapes: Mapping[str, tuple[int, int]],
    layers: int,
    fingerprint: str | None,
    capacity: int | None = None,
    rank: int | None = None,
    allow_base_mismatch: bool = False,
    homes: Homes = NOWHERE,
    ignore_saved: bool = False,
) -> tuple[Pool, tuple[LoadReport, ...]]:
    """All experts of `folder`, one a sub-folder, sorted by name; hidden ones are passed over.

    The options are those of `bank.stack` and of `read`.

    Raises UserError as `read` does, and on an empty folder or names that differ only in case.
    """
    found = folders_of(Path(folder))
    loaded = [
        read(path, sites, shapes, fingerprint, allow_base_mismatch, homes=homes, ignore_saved=ignore_saved)
        for path in found
    ]
    pool = pool_of(
        [expert for expert, _ in loaded], sites, shapes, layers, folders=found, capacity=capacity, rank=rank
    )
    return pool, compare([report for _, report in loaded], [info["hash"] for info in pool.infos])


def folders_of(pool: Path) -> list[Path]:
    """The experts' folders of a pool. Raises UserError where there is none, or names differ only in case."""
    if not pool.is_dir():
        raise UserError(f"{pool}: no such folder of experts")
    found = expert_folders(pool)
    if not found:
        raise UserError(
            f"{pool}: no expert in it: each is a sub-folder with adapter_config.json or config.json"
        )
    check_names(path.name for path in found)
    return found
