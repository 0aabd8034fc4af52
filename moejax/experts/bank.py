"""The bank: all experts of a pool stacked, path by path, with a fixed capacity of expert slots.

Append, drop and user masks change values, never shapes: nothing compiles again.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from moejax.experts import part, stacks
from moejax.experts.expert import Expert, expert_of
from moejax.experts.stacks import AnyStack, Bottlenecks, Deltas, Row, Stack
from moejax.parallel.mesh import whole
from moejax.parallel.rules import placed
from moejax.types import UserError

Index = int | Int[Array, ""]


class Bank(NamedTuple):
    """sites: path -> stack; alive [e]: False at a free expert slot or one that is switched off."""

    sites: dict[str, AnyStack]
    alive: Bool[Array, "e"]


def stack(
    experts: Sequence[Expert],
    shapes: Mapping[str, tuple[int, int]],
    layers: int,
    capacity: int | None = None,
    rank: int | None = None,
    where: Mapping[str, Collection[int]] | None = None,
    biased: Collection[str] = (),
) -> Bank:
    """Experts of different kinds, ranks, alphas, paths and layers in one bank; free slots are zero and not alive.

    shapes: path of a linear -> (d, f). capacity: expert slots, default one an expert. rank: default the largest found.
    where: path -> layers that get a slot whether or not an expert adapts them, for experts appended later;
    biased: paths that have room for a bias, likewise.
    Raises UserError when they do not fit.
    """
    capacity = whole(len(experts), "expert") if capacity is None else capacity
    if capacity < len(experts):
        raise UserError(f"capacity {capacity} is too small for {len(experts)} experts: raise it")
    ranks = [part.rank(one) for expert in experts for one in expert.parts.values()]
    rank = max(ranks, default=1) if rank is None else rank
    kinds, wide = _others(experts), dict(shapes)
    wide |= {path: size for path, (_, size) in kinds.items()}
    slots = _slots(experts, layers, where or {})
    biased = {p for one in experts for (p, _), lora in one.loras.items() if lora.bias is not None} | {*biased}
    sites: dict[str, Any] = {}
    for path in sorted(slots):
        if path not in wide:
            raise UserError(f"the base has no site {path!r}: it has {', '.join(sorted(shapes))}")
        kind = kinds[path][0] if path in kinds else "lora"
        lead = (int(slots[path].max()) + 1, capacity)
        leaves: Any = stacks.empty(kind, lead, rank, *wide[path], path in biased)
        sites[path] = stacks.OF_KIND[kind](**leaves, slot=slots[path])
    alive: Any = np.arange(capacity) < len(experts)
    bank = Bank(sites, alive)  # numpy while it is being filled
    for i, expert in enumerate(experts):
        for path, line in row(bank, expert).items():
            for name, value in line.items():
                getattr(sites[path], name)[:, i] = value
    return on_device(bank, lambda path: not isinstance(sites[path], Deltas))


def on_device(bank: Bank, which: Callable[[str], bool] = lambda path: True) -> Bank:
    """The bank with what it has at these paths on the device, or over the mesh; free where it is there already."""
    sites: dict[str, Any] = {
        path: placed(jax.tree.map(jnp.asarray, stack), f"bank/{path}/") if which(path) else stack
        for path, stack in bank.sites.items()
    }
    return Bank(sites, placed(jnp.asarray(bank.alive), "bank/alive"))


def _others(experts: Sequence[Expert]) -> dict[str, tuple[str, tuple[int, int]]]:
    """path -> kind, (d, f) of what is no LoRA; whether all have that size is looked at when they are put in."""
    found: dict[str, tuple[str, tuple[int, int]]] = {}
    for each in experts:
        for (path, _), one in each.bottlenecks.items():
            found[path] = "bottleneck", (one.a.shape[1],) * 2
        for (path, _), one in each.deltas.items():
            found[path] = "delta", one.w.shape
    return found


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
    rows = {path: stacks.room(stack) for path, stack in bank.sites.items()}
    for (path, layer), one in expert.parts.items():
        slot = int(np.asarray(bank.sites[path].slot)[layer]) if path in bank.sites else -1
        if slot < 0:
            raise UserError(
                f"the bank has no slot for {path!r} at layer {layer}, which expert {expert.name!r} adapts: "
                "stack the pool anew with it"
            )
        here = f"expert {expert.name!r} at {path!r}, layer {layer}"
        if not isinstance(one, part.KINDS[stacks.kind_of(bank.sites[path])]):
            raise UserError(
                f"{here} is of another kind than the bank's experts: keep kinds in pools of their own"
            )
        stacks.fill(rows[path], slot, one, here)
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
        zero = {
            n: leaf.at[:, index].set(jnp.zeros((), leaf.dtype)) for n, leaf in stacks.leaves(stack).items()
        }
        sites[path] = stack._replace(**zero)
    return Bank(sites, bank.alive.at[index].set(False))


def take(bank: Bank, indices: Sequence[int] | Int[Array, "n"]) -> Bank:
    """The bank of the experts at `indices`, in that order; layers keep their slots."""
    index = jnp.asarray(indices, jnp.int32)
    sites = {
        path: stack._replace(**{name: leaf[:, index] for name, leaf in stacks.leaves(stack).items()})
        for path, stack in bank.sites.items()
    }
    return Bank(sites, bank.alive[index])


def size(bank: Bank) -> int:
    """Capacity e: the number of expert slots, free ones among them."""
    return bank.alive.shape[0]


def lowest(bank: Bank) -> int:
    """The lowest adapted layer, a host int: layers below it run the bare base. 0 when nothing says better."""
    found = [np.asarray(stack.slot) for path, stack in bank.sites.items() if path.startswith("layers")]
    if any(path.startswith(("embed", "encoder_", "cross_")) for path in bank.sites):
        return 0
    return min((int(np.argmax(slot >= 0)) for slot in found), default=0)


def factored(bank: Bank) -> dict[str, Stack | Bottlenecks]:
    """path -> stack of the experts that are made of two factors, which is all but differences."""
    return {path: stack for path, stack in bank.sites.items() if not isinstance(stack, Deltas)}


def expert(bank: Bank, names: Sequence[str], index: int, like: Expert | None = None) -> Expert:
    """The expert at `index` read back.

    Rank, alpha and rsLoRA come from `like` where given; else zero rows are cut off and alpha = scale r.
    """
    parts = {}
    for path, stack in bank.sites.items():
        leaves = {n: np.asarray(leaf[:, index]) for n, leaf in stacks.leaves(stack).items()}
        for layer, slot in enumerate(np.asarray(stack.slot)):
            if slot >= 0 and leaves["present"][slot]:
                was = like.parts.get((path, layer)) if like else None
                here = {name: leaf[slot] for name, leaf in leaves.items()}
                parts[path, layer] = stacks.part_of(stacks.kind_of(stack), here, was)
    return expert_of(names[index], dict(like.info) if like else {}, parts)


def check(bank: Bank) -> None:
    """Raise UserError when shapes disagree, a value is not finite or a slot is out of range."""
    for path, stack in bank.sites.items():
        here, slot = f"the bank at {path!r}", np.asarray(stack.slot)
        if fault := stacks.misshapen(stack):
            raise UserError(f"{here} {fault}")
        s, e = stack.scale.shape
        if e != size(bank):
            raise UserError(f"{here} holds {e} experts, but `alive` says {size(bank)}")
        if sorted(slot[slot != -1]) != list(range(s)):
            raise UserError(
                f"{here} maps layers to slots {slot.tolist()}: expected each of 0..{s - 1} once, or -1"
            )
        for name, leaf in stacks.leaves(stack).items():
            if not bool(jnp.all(jnp.isfinite(leaf))):
                raise UserError(f"{here} has a value in `{name}` that is not finite")
        if bool(jnp.any((stack.scale != 0) & ~stack.present)):
            raise UserError(
                f"{here} has a scale where `present` is False: an absent expert must have scale 0"
            )
