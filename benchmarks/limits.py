"""The ratio to the bare call that bytes and operations alone would give.

Each of base, experts and scores takes the longer of its operations and its bytes, at the rates that the machine
reached, one after the other. Activations are counted once, with the base: whatever follows may find them near.
"""

from collections.abc import Sequence

from benchmarks.cases import FLOAT, Size
from benchmarks.machine import Rates


def read(size: Size) -> float:
    """Experts that are read: those that some token chooses, in the mean of random choices."""
    return size.e * (1 - (1 - size.k / size.e) ** size.n)


def layer(size: Size, rates: Rates, back: bool = False, scored: bool = False, merged: bool = False) -> float:
    """Of the routed layer; back: with the gradients of inputs, experts and weights (bare: of the inputs).

    merged: all e with the same weights for all tokens, by what is less: a pass through every rank, or one update.
    """
    n, d, k, r = size.n, size.d, size.k, size.r
    passes, factors = 1 + back, FLOAT * r * 2 * d
    bare = passes * _seconds(2.0 * n * d * d, FLOAT * (d * d + 2 * n * d), rates)
    work, experts = 2.0 * n * k * r * 2 * d, read(size)
    if merged:
        work, experts = min(2.0 * size.e * r * (2 * n * d), 2.0 * d * d * (size.e * r + n)), size.e
    mix = _seconds(work, experts * factors, rates)
    if back:  # dz and dx, dA and dB: twice the forward; the gradients of all experts are written
        mix += _seconds(2 * work, (experts + size.e) * factors, rates)
    score = _seconds(2.0 * n * d * size.e, FLOAT * d * size.e, rates) if scored else 0.0
    return (bare + mix + passes * score) / bare


def decode(size: Size) -> float:
    """Of one token, scores included, by bytes alone: (d f + e d + k r (d + f)) / (d f)."""
    d = size.d
    return (d * d + size.e * d + size.k * size.r * 2 * d) / (d * d)


def model(
    sites: Sequence[tuple[int, int]], other: float, n: int, e: int, k: int, r: int, reading: bool = False
) -> float:
    """Of a whole model, from the numbers that a token is multiplied with; reading: that are read for n tokens, once.

    sites: (d, f) of every adapted linear. other: the same numbers of everything else. e = 1: one expert, no scores.
    """
    rows = read(Size(n, e=e, k=k)) if reading else k
    bare = other + sum(d * f for d, f in sites)
    return (bare + sum(rows * r * (d + f) + (e > 1) * e * d for d, f in sites)) / bare


def _seconds(flops: float, moved: float, rates: Rates) -> float:
    return max(flops / rates.flops, moved / rates.bytes)
