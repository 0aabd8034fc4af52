"""A few expert slots for many experts: those that a batch uses are brought in, those used longest ago make way."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from moejax.experts import bank as banks
from moejax.experts.bank import Bank
from moejax.experts.expert import Expert
from moejax.types import UserError

_write = jax.jit(banks.put, donate_argnames="bank")
"""`bank.put` in place: the old bank is given up, so that a write costs one expert's bytes, not the bank's."""


class Slots:
    """A bank of fixed shape, and which expert stands where in it.

    `bank` is written in place: whoever takes it runs a program by it before the next `bring`, and keeps it no longer.
    `read` gives an expert by its name, from disk or host memory; it must fit the bank.
    """

    def __init__(self, bank: Bank, read: Callable[[str], Expert]):
        self.bank, self._read = bank, read
        self._outline = _outline(bank)
        self._free = [*reversed(range(banks.size(bank)))]
        self._slot: OrderedDict[str, int] = OrderedDict()  # from the one used longest ago on

    @property
    def names(self) -> tuple[str, ...]:
        """The expert in each slot; "" for a slot that was never used."""
        at = {slot: name for name, slot in self._slot.items()}
        return tuple(at.get(slot, "") for slot in range(banks.size(self.bank)))

    def bring(self, names: Sequence[str]) -> Int[np.ndarray, "n"]:
        """The slots of these experts, all in the bank at once; what is not there yet is read, in place of what was
        used longest ago. Raises UserError when they are more than the slots, and as reading does."""
        wanted = tuple(dict.fromkeys(names))
        if len(wanted) > banks.size(self.bank):
            raise UserError(
                f"one batch uses {len(wanted)} experts, and pool_slots has room for {banks.size(self.bank)}: "
                f"give pool_slots {len(wanted)} or more, or a smaller batch"
            )
        for name in wanted:
            if name in self._slot:
                self._slot.move_to_end(name)
        for name in wanted:
            if name not in self._slot:
                row = banks.row(self._outline, self._read(name))
                slot = self._free.pop() if self._free else self._slot.popitem(last=False)[1]
                self.bank = _write(self.bank, row, np.int32(slot))
                self._slot[name] = slot
        return np.array([self._slot[name] for name in names], np.int32)


def _outline(bank: Bank) -> Bank:
    """The bank's shapes, with `slot` on the host: all that laying out a row asks for, at no wait for the device."""
    sites: dict[str, Any] = {}
    for path, stack in bank.sites.items():
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), stack)
        sites[path] = shapes._replace(slot=np.asarray(stack.slot))
    return Bank(sites, np.asarray(bank.alive))  # pyright: ignore[reportArgumentType]
