"""The peers at the points of part 1: what each is compared with, what memory it needs, forward and backward."""

# pyright: reportMissingImports=false

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.cases import Case
from benchmarks.layer import FACTOR, OUTPUT, SCORED, Way
from benchmarks.measure import Call, Entry
from benchmarks.peers_torch import Peer, arrow, bare, mixed, outputs, parameters, xlora

BARE = "bare, torch"
Make = Callable[[Case], Peer]


def call(make: Make, case: Case, back: bool = False) -> Call:
    """Forward in inference mode, or forward and gradients in inputs, factors and weights."""
    peer = make(case)
    if not back:

        def forward() -> Tensor:
            with torch.inference_mode():
                return peer.apply(peer.x)

        return forward
    x = peer.x.clone().requires_grad_()

    def both() -> tuple[Tensor, ...]:
        y = peer.apply(x)
        return y, *torch.autograd.grad(y, [x, *peer.free], peer.aim, allow_unused=True)

    return both


class Kind(NamedTuple):
    """A peer: how it is made, the way of ours that computes the same, or that it is printed beside, what it needs."""

    name: str
    make: Make
    same: Way | None
    beside: Way | None
    need: Callable[[Case, bool], float]


def _outs(case: Case, back: bool) -> float:
    """Arrow holds the output of every expert for every token, twice, and their gradients."""
    return 4.0 * case.size.n * case.size.e * case.size.d * (4 if back else 2)


def _ranks(case: Case, back: bool) -> float:
    """mttl's first order stays in rank space, since torch finds opt_einsum, on which jax depends."""
    return 12.0 * case.size.n * case.size.e * case.size.r * (2 if back else 1)


def _params(case: Case, back: bool) -> float:
    """A mixed A and B for every token, and their gradients."""
    return 8.0 * case.size.n * case.size.r * case.size.d * (2 if back else 1)


def _inputs(case: Case, back: bool) -> float:
    """X-LoRA keeps for the backward pass the input times every expert's weight."""
    return 4.0 * case.size.n * case.size.d * (2 * case.size.e if back else 4)


KINDS = (
    Kind("peft, mixed batch (one given adapter a token)", mixed, None, OUTPUT, lambda case, back: 0.0),
    Kind("peft, Arrow", arrow, SCORED, None, _outs),
    Kind("peft, X-LoRA (scalings given)", xlora, OUTPUT, None, _inputs),
    Kind("mttl, mixing outputs", outputs, OUTPUT, None, _ranks),
    Kind("mttl, mixing parameters", parameters, FACTOR, None, _params),
)


def entries(case: Case, back: bool = False, only: Sequence[str] = ()) -> list[Entry]:
    """torch's bare projection, and the peers at a point; only: some of them, by name."""
    found = [Entry(BARE, partial(call, bare, case, back), BARE, "bare", beside="bare, jax")]
    for kind in KINDS:
        if not only or kind.name in only:
            rival, beside = (way.name if way else "" for way in (kind.same, kind.beside))
            make, need = partial(call, kind.make, case, back), kind.need(case, back)
            found.append(Entry(kind.name, make, BARE, "peer", rival, beside, need))
    return found


def output(make: Make, case: Case, back: bool = False) -> list[np.ndarray]:
    """What a peer gives, for tests: the output [n, f], and the gradient in the inputs [n, d]."""
    found = call(make, case, back)()
    some = found[:2] if back else [found]
    return [tensor.detach().numpy().reshape(case.size.n, -1) for tensor in some]
