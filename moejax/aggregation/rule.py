"""Which formulation is quickest, from what is known when a program is traced."""

from typing import Literal

Formulation = Literal["dense", "gather", "blocks", "kernel"]
"""How the k experts of each token are reached; all give the same numbers.

dense   all experts at once through the rank, two matmuls, 2 n e r (d + f) FLOPs whatever k is
gather  a copy of the k experts of each token, k r (d + f) numbers a token
blocks  tokens ordered by expert, a block of them to one read of its expert
kernel  the same as one Pallas program, for GPU and TPU
"""

FEW = 32  # pairs of a token and an expert up to which each may read what is its own
FEWEST = 4  # up to which ordering them does not pay on a CPU: a single token's
LARGEST = 32  # rows of a block on a CPU, at most: they are unrolled


def choose(tokens: int, experts: int, k: int, backend: str) -> Formulation:
    """The quickest on that backend, as `make bench` measured it on a CPU; on a GPU or a TPU by what it reads."""
    if k >= experts:
        return "dense"
    if backend != "cpu":
        return "kernel" if tokens * k > FEW else "gather"
    if tokens * k <= FEWEST:
        return "gather"
    return "dense" if experts <= 2 * k else "blocks"


def block_size(pairs: int, experts: int) -> int:
    """Rows of a block on a CPU: the power of two nearest to the rows of an expert, 8 to `LARGEST`."""
    size = 8
    while size < LARGEST and size * size * 2 <= (pairs / experts) ** 2:
        size *= 2
    return size
