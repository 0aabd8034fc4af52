"""All experts of one path stacked, a record for each kind of expert, and one expert laid out for it.

Whatever the kind, the leaves are [s, e, …], but for `slot` [l]: a layer's index into s, or -1.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from moejax.experts.bottleneck import ACTS, Bottleneck
from moejax.experts.delta import Delta
from moejax.experts.lora import Lora
from moejax.experts.part import Part, rank, scale
from moejax.types import UserError

Row = dict[str, Any]  # leaves of a stack by name, without `slot`: [s, …] of one expert, or [s, e, …]


class Stack(NamedTuple):
    """LoRAs of one linear, all adapted layers. Ranks below r are padded with zeros; scale is 0 where absent.

    a [s, e, r, d], b [s, e, r, f], scale [s, e], present [s, e]; slot [l]; bias [s, e, f], None where no LoRA has one.
    Of experts that stay on disk (`open_pool`) a, b and bias are None.
    """

    a: Float[Array, "s e r d"]
    b: Float[Array, "s e r f"]
    scale: Float[Array, "s e"]
    present: Bool[Array, "s e"]
    slot: Int[Array, "l"]
    bias: Float[Array, "s e f"] | None = None


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


class Deltas(NamedTuple):
    """Differences to one linear, or to one norm (d = 1), likewise; scale is 1 where present, and 0 where absent.

    They are large, and stay in numpy until a method puts those that it routes on the device.
    """

    w: Float[Array, "s e d f"]
    bias: Float[Array, "s e f"]
    scale: Float[Array, "s e"]
    present: Bool[Array, "s e"]
    slot: Int[Array, "l"]


AnyStack = Stack | Bottlenecks | Deltas
OF_KIND: dict[str, type[Stack] | type[Bottlenecks] | type[Deltas]] = {
    "lora": Stack,
    "bottleneck": Bottlenecks,
    "delta": Deltas,
}


def kind_of(stack: AnyStack) -> str:
    """The kind of its experts."""
    return next(kind for kind, record in OF_KIND.items() if isinstance(stack, record))


def leaves(stack: AnyStack) -> Row:
    """name -> leaf [s, e, …], of those that it has: all but `slot`."""
    return {name: leaf for name, leaf in stack._asdict().items() if name != "slot" and leaf is not None}


def room(stack: AnyStack) -> Row:
    """Room for one more expert: the leaves of a stack without its experts, zeros [s, …]."""
    return {
        name: np.zeros((leaf.shape[0], *leaf.shape[2:]), leaf.dtype) for name, leaf in leaves(stack).items()
    }


def misshapen(stack: AnyStack) -> str:
    """What is wrong with the shapes of the leaves; empty: nothing."""
    (s, e), big = stack[0].shape[:2], stack[:2] if isinstance(stack, Deltas) else (stack.a, stack.b)
    wanted = "[s, e, d, f], [s, e, f]" if isinstance(stack, Deltas) else "[s, e, r, d], [s, e, r, f]"
    if isinstance(stack, Deltas):
        fits = stack.bias.shape == (s, e, stack.w.shape[3])
    else:
        fits = stack.b.shape[:3] == (s, e, stack.a.shape[2])
        if isinstance(stack, Stack) and stack.bias is not None:
            fits = fits and stack.bias.shape == (s, e, stack.b.shape[3])
    if fits and stack.scale.shape == stack.present.shape == (s, e):
        return ""
    shapes = ", ".join(str(leaf.shape) for leaf in (*big, stack.scale, stack.present))
    return f"has shapes {shapes}: expected {wanted}, [s, e], [s, e]"


def empty(kind: str, lead: Sequence[int], r: int, d: int, f: int, biased: bool = False) -> Row:
    """Room for experts of a kind: leaves of zeros, [*lead, …]; biased: for LoRAs that have a bias."""
    zero = np.zeros(tuple(lead), np.float32)
    if kind == "delta":
        row = {"w": np.zeros((*lead, d, f), np.float32), "bias": np.zeros((*lead, f), np.float32)}
        return row | {"scale": zero, "present": zero > 0}
    row = {"a": np.zeros((*lead, r, d), np.float32), "b": np.zeros((*lead, r, f), np.float32)}
    row |= {"scale": zero, "present": zero > 0}
    if kind == "bottleneck":
        biases = {"a_bias": np.zeros((*lead, r), np.float32), "b_bias": np.zeros((*lead, f), np.float32)}
        row |= biases | {"act": zero.astype(np.int32)}
    if kind == "lora" and biased:
        row["bias"] = np.zeros((*lead, f), np.float32)
    return row


def fill(row: Row, slot: int, part: Part, what: str) -> None:
    """Put a part into a row. Raises UserError when it does not fit."""
    row["scale"][slot], row["present"][slot] = scale(part), True
    if isinstance(part, Delta):
        expected = row["w"].shape[1:]
        if part.w.shape != expected or part.bias.shape != expected[1:]:
            raise UserError(
                f"{what} has differences {part.w.shape} and {part.bias.shape}: expected {expected} and {expected[1:]}"
            )
        row["w"][slot], row["bias"][slot] = part
        return
    (most, d), f, r = row["a"].shape[1:], row["b"].shape[-1], rank(part)
    if part.a.shape[1] != d or part.b.shape != (r, f):
        raise UserError(
            f"{what} has factors {part.a.shape} and {part.b.shape}: expected [r, {d}] and [r, {f}]"
        )
    if r > most:
        raise UserError(f"{what} has rank {r}, the bank holds {most}: stack it with rank={r} or compress it")
    row["a"][slot, :r], row["b"][slot, :r] = part.a, part.b
    if isinstance(part, Lora) and part.bias is not None:
        if part.bias.shape != (f,):
            raise UserError(f"{what} has a bias {part.bias.shape}: expected [{f}]")
        if "bias" not in row:
            raise UserError(f"{what} has a bias, for which the bank has no room: stack the pool anew with it")
        row["bias"][slot] = part.bias
    if isinstance(part, Bottleneck):
        row["a_bias"][slot, :r], row["b_bias"][slot] = part.a_bias, part.b_bias
        row["act"][slot] = list(ACTS).index(part.act)


def part_of(kind: str, leaves: Row, like: Part | None) -> Part:
    """One part read back from the leaves of one slot and expert; rank, alpha and rsLoRA as in `like`, where given."""
    if kind == "delta":
        return Delta(leaves["w"].copy(), leaves["bias"].copy())
    a, b, times = leaves["a"], leaves["b"], leaves["scale"]
    r = rank(like) if like else _rank(a, b)
    a, b = a[:r].copy(), b[:r].copy()
    if kind == "lora":
        alpha, rslora = float(times * np.float32(r)), False
        if isinstance(like, Lora):
            alpha, rslora = like.alpha, like.rslora
        bias = leaves.get("bias")
        had = like.bias is not None if isinstance(like, Lora) else bias is not None and bool(np.any(bias))
        return Lora(a, b, alpha, rslora, bias.copy() if had and bias is not None else None)
    act = list(ACTS)[int(leaves["act"])]
    return Bottleneck(a, leaves["a_bias"][:r].copy(), b, leaves["b_bias"].copy(), act, float(times))


def _rank(a: np.ndarray, b: np.ndarray) -> int:
    used = np.flatnonzero(np.any(a != 0, axis=1) | np.any(b != 0, axis=1))
    return int(used[-1]) + 1 if len(used) else 1
