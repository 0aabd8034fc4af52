"""The bank: all experts of a pool stacked, path by path, with a fixed capacity of expert slots.

Append, drop and user masks change values, never shapes: nothing compiles again.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from moejax.experts import part, stacks
from moejax.experts.expert import Expert, expert_of
from moejax.experts.stacks import Bottlenecks, Row, Stack
from moejax.types import UserError

Index = int | Int[Array, ""]


class Bank(NamedTuple):
    """sites: path -> stack; alive [e]: False at a free expert slot or one that is switched off."""

    sites: dict[str, Stack | Bottlenecks]
    alive: Bool[Array, "e"]


def stack(
    experts: Sequence[Expert],
    shapes: Mapping[str, tuple[int, int]],
    layers: int,
    capacity: int | None = None,
    rank: int | None = None,
    where: Mapping[str, Collection[int]] | None = None,
) -> Bank:
    """Experts of different kinds, ranks, alphas, paths and layers in one bank; free slots are zero and not alive.

    shapes: path of a linear -> (d, f). capacity: expert slots, default one an expert. rank: default the largest found.
    where: path -> layers that get a slot whether or not an expert adapts them, for experts appended later.
    Raises UserError when they do not fit.
    """
    capacity = len(experts) if capacity is None else capacity
    if capacity < len(experts):
        raise UserError(f"capacity {capacity} is too small for {len(experts)} experts: raise it")
    ranks = [part.rank(one) for expert in experts for one in expert.parts.values()]
    rank = max(ranks, default=1) if rank is None else rank
    wide = dict(shapes) | {path: (d, d) for path, d in _widths(experts).items()}
    slots = _slots(experts, layers, where or {})
    sites: dict[str, Any] = {}
    for path in sorted(slots):
        if path not in wide:
            raise UserError(f"the base has no site {path!r}: it has {', '.join(sorted(shapes))}")
        kind = "lora" if path in shapes else "bottleneck"
        leaves: Any = stacks.empty(kind, (int(slots[path].max()) + 1, capacity), rank, *wide[path])
        sites[path] = stacks.OF_KIND[kind](**leaves, slot=slots[path])
    alive: Any = np.arange(capacity) < len(experts)
    bank = Bank(sites, alive)  # numpy while it is being filled
    for i, expert in enumerate(experts):
        for path, line in row(bank, expert).items():
            for name, value in line.items():
                getattr(sites[path], name)[:, i] = value
    return jax.tree.map(jnp.asarray, bank)


def _widths(experts: Sequence[Expert]) -> dict[str, int]:
    """path -> d of the bottleneck adapters; whether all have it is looked at when they are put in."""
    return {path: one.a.shape[1] for each in experts for (path, _), one in each.bottlenecks.items()}


def _slots(experts, layers, where):
    """path -> slot [l], the adapted layers in rising order."""
    used: dict[str, set[int]] = {path: set(some) for path, some in where.items() if some}
    for expert in experts:
        for path, layer in expert.parts:
            if not 0 <= layer < layers:
                raise UserError(
                    f"expert {expert.name!r} adapts layer {layer} of {path!r}: the base has {layers}"
                )
            used.setdefault(path, set()).add(layer)
    slots = {}
    for path, some in used.items():
        slots[path] = np.full(layers, -1, np.int32)
        slots[path][sorted(some)] = np.arange(len(some))
    return slots


def row(bank: Bank, expert: Expert) -> dict[str, Row]:
    """An expert laid out as a row of the bank, on the host. Raises UserError when it does not fit."""
    rows = {}
    for path, stack in bank.sites.items():
        (s, _, r, d), f = stack.a.shape, stack.b.shape[-1]
        rows[path] = stacks.empty(stacks.kind_of(stack), (s,), r, d, f)
    for (path, layer), one in expert.parts.items():
        slot = int(np.asarray(bank.sites[path].slot)[layer]) if path in bank.sites else -1
        if slot < 0:
            raise UserError(
                f"the bank has no slot for {path!r} at layer {layer}, which expert {expert.name!r} adapts: "
                "stack the pool anew with it"
            )
        stacks.fill(rows[path], slot, one, f"expert {expert.name!r} at {path!r}, layer {layer}")
    return rows


@jax.jit
def put(bank: Bank, rows: dict[str, Row], index: Index) -> Bank:
    """Write a laid out expert into expert slot `index` (may be traced) and make it alive."""
    sites = {}
    for path, stack in bank.sites.items():
        new = {name: getattr(stack, name).at[:, index].set(value) for name, value in rows[path].items()}
        sites[path] = stack._replace(**new)
    return Bank(sites, bank.alive.at[index].set(True))


def append(bank: Bank, expert: Expert, index: Index) -> Bank:
    """The bank with `expert` in expert slot `index` (may be traced): the same shapes, no new compile."""
    return put(bank, row(bank, expert), index)


@jax.jit
def drop(bank: Bank, index: Index) -> Bank:
    """The bank with expert slot `index` (may be traced) free: not alive, values zero, the same shapes."""
    sites = {}
    for path, stack in bank.sites.items():
        leaves = [leaf.at[:, index].set(jnp.zeros((), leaf.dtype)) for leaf in stack[:-1]]
        sites[path] = type(stack)(*leaves, slot=stack.slot)
    return Bank(sites, bank.alive.at[index].set(False))


def take(bank: Bank, indices: Sequence[int] | Int[Array, "n"]) -> Bank:
    """The bank of the experts at `indices`, in that order; layers keep their slots."""
    index = jnp.asarray(indices, jnp.int32)
    sites = {
        path: type(stack)(*(leaf[:, index] for leaf in stack[:-1]), slot=stack.slot)
        for path, stack in bank.sites.items()
    }
    return Bank(sites, bank.alive[index])


def size(bank: Bank) -> int:
    """Capacity e: the number of expert slots, free ones among them."""
    return bank.alive.shape[0]


def lowest(bank: Bank) -> int:
    """The lowest adapted layer, a host int: layers below it run the bare base. 0 when nothing says better."""
    found = [np.asarray(stack.slot) for path, stack in bank.sites.items() if path.startswith("layers")]
    if len(found) < len(bank.sites) and any(path.startswith("embed") for path in bank.sites):
        return 0
    return min((int(np.argmax(slot >= 0)) for slot in found), default=0)


def expert(bank: Bank, names: Sequence[str], index: int, like: Expert | None = None) -> Expert:
    """The expert at `index` read back.

    Rank, alpha and rsLoRA come from `like` where given; else zero rows are cut off and alpha = scale r.
    """
    parts = {}
    for path, stack in bank.sites.items():
        leaves = {n: np.asarray(leaf[:, index]) for n, leaf in zip(stack._fields, stack[:-1], strict=False)}
        for layer, slot in enumerate(np.asarray(stack.slot)):
            if slot >= 0 and leaves["present"][slot]:
                was = like.parts.get((path, layer)) if like else None
                here = {name: leaf[slot] for name, leaf in leaves.items()}
                parts[path, layer] = stacks.part_of(stacks.kind_of(stack), here, was)
    return expert_of(names[index], dict(like.info) if like else {}, parts)


def check(bank: Bank) -> None:
    """Raise UserError when shapes disagree, a value is not finite or a slot is out of range."""
    for path, stack in bank.sites.items():
        (s, e, r, _), slot = stack.a.shape, np.asarray(stack.slot)
        here = f"the bank at {path!r}"
        if stack.b.shape[:3] != (s, e, r) or stack.scale.shape != (s, e) or stack.present.shape != (s, e):
            shapes = ", ".join(str(leaf.shape) for leaf in (stack.a, stack.b, stack.scale, stack.present))
            raise UserError(
                f"{here} has shapes {shapes}: expected [s, e, r, d], [s, e, r, f], [s, e], [s, e]"
            )
        if e != size(bank):
            raise UserError(f"{here} holds {e} experts, but `alive` says {size(bank)}")
        if sorted(slot[slot != -1]) != list(range(s)):
            raise UserError(
                f"{here} maps layers to slots {slot.tolist()}: expected each of 0..{s - 1} once, or -1"
            )
        for name, leaf in zip(stack._fields, stack[:-1], strict=False):
            if not bool(jnp.all(jnp.isfinite(leaf))):
                raise UserError(f"{here} has a value in `{name}` that is not finite")
        if bool(jnp.any((stack.scale != 0) & ~stack.present)):
            raise UserError(
                f"{here} has a scale where `present` is False: an absent expert must have scale 0"
            )
