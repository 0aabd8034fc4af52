"""One LoRA at one linear: delta(x) = scale ((x A^T) B + bias), with A [r, d], B [r, f], bias [f], numpy float32."""

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from moejax.types import PRNGKey


class Lora(NamedTuple):
    """The factors and what their scale is made of: alpha / r, or alpha / sqrt(r) when `rslora`.

    a [r, d] is PEFT's `lora_A.weight`; b [r, f] is the transpose of its `lora_B.weight`; bias [f] is its
    `lora_B.bias`, which few LoRAs have (`lora_bias`).
    """

    a: np.ndarray
    b: np.ndarray
    alpha: float
    rslora: bool = False
    bias: np.ndarray | None = None


def rank(lora: Lora) -> int:
    """r, the number of rows of both factors."""
    return lora.a.shape[0]


def scale(lora: Lora) -> float:
    """What its product is multiplied by, `scale_of`."""
    return scale_of(rank(lora), lora.alpha, lora.rslora)


def scale_of(r: int, alpha: float, rslora: bool) -> float:
    """alpha / r, or alpha / sqrt(r) (rsLoRA, 2312.03732, section 4)."""
    return alpha / (sqrt(r) if rslora else r)


def delta(lora: Lora) -> Float[np.ndarray, "d f"]:
    """scale A^T B, dense [d, f], so that delta(x) = x @ delta + scale bias. For small layers: it costs d f."""
    return np.float32(scale(lora)) * (lora.a.T @ lora.b)


def norm(lora: Lora) -> float:
    """Frobenius norm of delta and bias, from the factors: scale sqrt(sum (A A^T) (B B^T) + |bias|^2).

    Cost r^2 (d + f).
    """
    a, b = lora.a.astype(np.float64), lora.b.astype(np.float64)
    square = max(float(np.sum((a @ a.T) * (b @ b.T))), 0.0)
    if lora.bias is not None:
        square += float(np.sum(np.square(lora.bias, dtype=np.float64)))
    return abs(scale(lora)) * sqrt(square)


def init(key: PRNGKey, d: int, f: int, rank: int, alpha: float | int, rslora: bool = False) -> Lora:
    """A ~ N(0, 1/d), B = 0: the delta starts at zero (LoRA, 2106.09685, section 4.1)."""
    a = jax.random.normal(key, (rank, d)) / sqrt(d)
    return Lora(np.asarray(a, np.float32), np.zeros((rank, f), np.float32), float(alpha), rslora)


def merge(loras: Sequence[Lora], weights: Sequence[float]) -> Lora:
    """sum_e w_e s_e B_e A_e exactly, as one LoRA of scale 1 and rank sum r_e: rows w_e s_e A_e over rows B_e.

    Its bias is sum_e w_e s_e bias_e.

    Raises ValueError when there is nothing to merge or the counts differ.
    """
    if not loras or len(loras) != len(weights):
        raise ValueError(f"merge needs one weight a LoRA: {len(loras)} LoRAs, {len(weights)} weights")
    scales = [np.float32(w * scale(lora)) for lora, w in zip(loras, weights, strict=True)]
    a = np.concatenate([w * lora.a for lora, w in zip(loras, scales, strict=True)])
    biases = [w * lora.bias for lora, w in zip(loras, scales, strict=True) if lora.bias is not None]
    bias = sum(biases[1:], biases[0]) if biases else None
    return Lora(a, np.concatenate([lora.b for lora in loras]), float(len(a)), bias=bias)


def kept(values: Float[np.ndarray, "r"], rank: int | None = None, energy: float = 1.0) -> int:
    """How many singular values, falling, hold this share of the sum of their squares: at least 1, at most `rank`."""
    share = np.cumsum(np.square(values, dtype=np.float64))
    most = len(values) if rank is None else min(rank, len(values))
    if energy >= 1.0 or not share[-1]:
        return max(most, 1) if share[-1] else 1
    return max(1, min(most, int(np.searchsorted(share / share[-1], energy)) + 1))


def compress(lora: Lora, rank: int | None = None, energy: float = 1.0) -> tuple[Lora, float]:
    """The best approximation of rank at most `rank`, scale 1, and its relative Frobenius error.

    Of a smaller rank where that keeps `energy`, a share of the sum of the squared singular values.

    With A^T = Q_a R_a and B^T = Q_b R_b, svd(s R_a R_b^T) = U S V^T gives A' = sqrt(S) (Q_a U)^T and
    B' = sqrt(S) (Q_b V)^T; error = |discarded S| / |S| (Eckart and Young). The [d, f] delta is never formed.
    A bias stays as it is, times the scale.
    """
    q_a, r_a = np.linalg.qr(lora.a.T.astype(np.float64))
    q_b, r_b = np.linalg.qr(lora.b.T.astype(np.float64))
    u, s, v_t = np.linalg.svd(scale(lora) * (r_a @ r_b.T), full_matrices=False)
    r = kept(s, rank, energy)
    root = np.sqrt(s[:r])[:, None]
    total = float(np.linalg.norm(s))
    error = float(np.linalg.norm(s[r:])) / total if total else 0.0
    a = (root * (q_a @ u[:, :r]).T).astype(np.float32)
    b = (root * (q_b @ v_t[:r].T).T).astype(np.float32)
    bias = None if lora.bias is None else np.float32(scale(lora)) * lora.bias
    return Lora(a, b, float(r), bias=bias), error
