"""All experts of one path stacked, a record for each kind of expert, and one expert laid out for it.

Whatever the kind, the leaves are [s, e, …], but for the last one, `slot` [l]: a layer's index into s, or -1.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from moejax.experts.bottleneck import ACTS, Bottleneck
from moejax.experts.lora import Lora
from moejax.experts.part import Part, rank, scale
from moejax.types import UserError

Row = dict[str, Any]  # leaves of a stack by name, without `slot`: [s, …] of one expert, or [s, e, …]


class Stack(NamedTuple):
    """LoRAs of one linear, all adapted layers. Ranks below r are padded with zeros; scale is 0 where absent.

    a [s, e, r, d], b [s, e, r, f], scale [s, e], present [s, e]; slot [l]
    """

    a: Float[Array, "s e r d"]
    b: Float[Array, "s e r f"]
    scale: Float[Array, "s e"]
    present: Bool[Array, "s e"]
    slot: Int[Array, "l"]


class Bottlenecks(NamedTuple):
    """Bottleneck adapters of one sub-layer or join, likewise; act: the place of the non-linearity in `ACTS`."""

    a: Float[Array, "s e r d"]
    a_bias: Float[Array, "s e r"]
    b: Float[Array, "s e r d"]
    b_bias: Float[Array, "s e d"]
    act: Int[Array, "s e"]
    scale: Float[Array, "s e"]
    present: Bool[Array, "s e"]
    slot: Int[Array, "l"]


OF_KIND: dict[str, type[Stack] | type[Bottlenecks]] = {"lora": Stack, "bottleneck": Bottlenecks}


def kind_of(stack: Stack | Bottlenecks) -> str:
    """The kind of its experts."""
    return next(kind for kind, record in OF_KIND.items() if isinstance(stack, record))


def empty(kind: str, lead: Sequence[int], r: int, d: int, f: int) -> Row:
    """Room for experts of a kind: leaves of zeros, [*lead, …]."""
    zero = np.zeros(tuple(lead), np.float32)
    row = {"a": np.zeros((*lead, r, d), np.float32), "b": np.zeros((*lead, r, f), np.float32)}
    row |= {"scale": zero, "present": zero > 0}
    if kind == "bottleneck":
        biases = {"a_bias": np.zeros((*lead, r), np.float32), "b_bias": np.zeros((*lead, f), np.float32)}
        row |= biases | {"act": zero.astype(np.int32)}
    return row


def fill(row: Row, slot: int, part: Part, what: str) -> None:
    """Put a part into a row. Raises UserError when it does not fit."""
    (most, d), f, r = row["a"].shape[1:], row["b"].shape[-1], rank(part)
    if part.a.shape[1] != d or part.b.shape != (r, f):
        raise UserError(
            f"{what} has factors {part.a.shape} and {part.b.shape}: expected [r, {d}] and [r, {f}]"
        )
    if r > most:
        raise UserError(f"{what} has rank {r}, the bank holds {most}: stack it with rank={r} or compress it")
    row["a"][slot, :r], row["b"][slot, :r] = part.a, part.b
    row["scale"][slot], row["present"][slot] = scale(part), True
    if isinstance(part, Bottleneck):
        row["a_bias"][slot, :r], row["b_bias"][slot] = part.a_bias, part.b_bias
        row["act"][slot] = list(ACTS).index(part.act)


def part_of(kind: str, leaves: Row, like: Part | None) -> Part:
    """One part read back from the leaves of one slot and expert; rank, alpha and rsLoRA as in `like`, where given."""
    a, b, times = leaves["a"], leaves["b"], leaves["scale"]
    r = rank(like) if like else _rank(a, b)
    a, b = a[:r].copy(), b[:r].copy()
    if kind == "lora":
        alpha, rslora = float(times * np.float32(r)), False
        return Lora(a, b, *((like.alpha, like.rslora) if isinstance(like, Lora) else (alpha, rslora)))
    act = list(ACTS)[int(leaves["act"])]
    return Bottleneck(a, leaves["a_bias"][:r].copy(), b, leaves["b_bias"].copy(), act, float(times))


def _rank(a: np.ndarray, b: np.ndarray) -> int:
    used = np.flatnonzero(np.any(a != 0, axis=1) | np.any(b != 0, axis=1))
    return int(used[-1]) + 1 if len(used) else 1
