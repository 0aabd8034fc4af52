"""One LoRA at one linear: delta(x) = scale (x A^T) B, with A [r, d] and B [r, f], numpy float32."""

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from moejax.types import PRNGKey


class Lora(NamedTuple):
    """The factors and what their scale is made of: alpha / r, or alpha / sqrt(r) when `rslora`.

    a [r, d] is PEFT's `lora_A.weight`; b [r, f] is the transpose of its `lora_B.weight`.
    """

    a: np.ndarray
    b: np.ndarray
    alpha: float
    rslora: bool = False


def rank(lora: Lora) -> int:
    """r, the number of rows of both factors."""
    return lora.a.shape[0]


def scale(lora: Lora) -> float:
    """alpha / r, or alpha / sqrt(r) (rsLoRA, 2312.03732, section 4)."""
    return lora.alpha / (sqrt(rank(lora)) if lora.rslora else rank(lora))


def delta(lora: Lora) -> Float[np.ndarray, "d f"]:
    """scale A^T B, dense [d, f], so that delta(x) = x @ delta. For tests and small layers: it costs d f."""
    return np.float32(scale(lora)) * (lora.a.T @ lora.b)


def norm(lora: Lora) -> float:
    """Frobenius norm of the delta, from the factors: scale sqrt(sum (A A^T) (B B^T)), cost r^2 (d + f)."""
    a, b = lora.a.astype(np.float64), lora.b.astype(np.float64)
    return abs(scale(lora)) * sqrt(max(float(np.sum((a @ a.T) * (b @ b.T))), 0.0))


def init(key: PRNGKey, d: int, f: int, rank: int, alpha: float | int, rslora: bool = False) -> Lora:
    """A ~ N(0, 1/d), B = 0: the delta starts at zero (LoRA, 2106.09685, section 4.1)."""
    a = jax.random.normal(key, (rank, d)) / sqrt(d)
    return Lora(np.asarray(a, np.float32), np.zeros((rank, f), np.float32), float(alpha), rslora)


def merge(loras: Sequence[Lora], weights: Sequence[float]) -> Lora:
    """sum_e w_e s_e B_e A_e exactly, as one LoRA of scale 1 and rank sum r_e: rows w_e s_e A_e over rows B_e.

    Raises ValueError when there is nothing to merge or the counts differ.
    """
    if not loras or len(loras) != len(weights):
        raise ValueError(f"merge needs one weight a LoRA: {len(loras)} LoRAs, {len(weights)} weights")
    pairs = zip(loras, weights, strict=True)
    a = np.concatenate([np.float32(w * scale(lora)) * lora.a for lora, w in pairs])
    return Lora(a, np.concatenate([lora.b for lora in loras]), float(len(a)))


def compress(lora: Lora, rank: int) -> tuple[Lora, float]:
    """The best approximation of rank at most `rank`, scale 1, and its relative Frobenius error.

    With A^T = Q_a R_a and B^T = Q_b R_b, svd(s R_a R_b^T) = U S V^T gives A' = sqrt(S) (Q_a U)^T and
    B' = sqrt(S) (Q_b V)^T; error = |discarded S| / |S| (Eckart and Young). The [d, f] delta is never formed.
    """
    q_a, r_a = np.linalg.qr(lora.a.T.astype(np.float64))
    q_b, r_b = np.linalg.qr(lora.b.T.astype(np.float64))
    u, s, v_t = np.linalg.svd(scale(lora) * (r_a @ r_b.T), full_matrices=False)
    kept = min(rank, len(s))
    root = np.sqrt(s[:kept])[:, None]
    total = float(np.linalg.norm(s))
    error = float(np.linalg.norm(s[kept:])) / total if total else 0.0
    a = (root * (q_a @ u[:, :kept]).T).astype(np.float32)
    b = (root * (q_b @ v_t[:kept].T).T).astype(np.float32)
    return Lora(a, b, float(kept)), error
