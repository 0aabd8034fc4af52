"""One expert made of several, where the weights are the same for every request: what PEFT can load and serve."""

from typing import Literal

import numpy as np
from jaxtyping import Float

from moejax.experts.bank import Bank
from moejax.experts.expert import Expert
from moejax.experts.lora import Lora
from moejax.experts.stacks import Stack, kind_of
from moejax.types import UserError

Mode = Literal["output", "factor"]


def merged(bank: Bank, weights: Float[np.ndarray, "e"], mode: Mode, name: str) -> Expert:
    """The expert that does what this bank does under task weights, at every site where it does anything.

    `output`: A = [A_e, …] one under the other, B = [w_e s_e B_e, …], of rank sum r over the experts with a weight;
    `factor`: A = sum w_e A_e, B = sum w_e s_e B_e, of the largest rank. Its scale is 1, its bias
    sum w_e s_e bias_e where any has one.
    Raises UserError where experts are no LoRAs: what is not linear has no such sum.
    """
    loras = {}
    for path, stack in bank.sites.items():
        if not isinstance(stack, Stack):
            raise UserError(
                f"the experts at {path!r} are of kind {kind_of(stack)}: only LoRAs can be merged into one expert"
            )
        for layer, slot in enumerate(np.asarray(stack.slot)):
            if (
                slot >= 0
                and (one := _at(stack, int(slot), weights * np.asarray(bank.alive), mode)) is not None
            ):
                loras[path, layer] = one
    return Expert(name, {}, loras)


def _at(stack: Stack, slot: int, weights: Float[np.ndarray, "e"], mode: Mode) -> Lora | None:
    """The merge at one site; None where it is zero."""
    a, b, scale, present = (np.asarray(leaf[slot]) for leaf in stack[:4])
    w = weights * present
    if mode == "factor":
        down, up = np.einsum("e,erd->rd", w, a), np.einsum("e,erf->rf", w * scale, b)
    else:
        used = np.flatnonzero(w)
        down, up = (leaf[used].reshape(-1, leaf.shape[-1]) for leaf in (a, b * (w * scale)[:, None, None]))
    kept = down.any(axis=1) & up.any(axis=1)  # what fills a smaller rank, or adds nothing
    bias = None if stack.bias is None else np.einsum("e,ef->f", w * scale, np.asarray(stack.bias[slot]))
    bias = None if bias is None or not bias.any() else bias.astype(np.float32)
    if not kept.any():
        if bias is None:
            return None
        kept = np.arange(len(down)) == 0  # a bias alone still needs factors to stand beside
        down, up = down * 0, up * 0
    return Lora(down[kept].astype(np.float32), up[kept].astype(np.float32), float(kept.sum()), bias=bias)
