"""Rotary positions: the angle of each pair of a head, its stretching, and the turning."""

import math
from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


@dataclass(frozen=True)
class Rotary:
    """Rotary positions: base `theta`, the stretching of low frequencies, and the part of a head that is turned.

    Source: Su et al. 2021 (RoFormer), section 3.2.2; stretching as in Llama 3.1; a part as in GPT-NeoX.
    """

    theta: float = 10000.0
    scaling: Literal["none", "linear", "llama3"] = "none"
    factor: float = 1.0
    low: float = 1.0
    high: float = 4.0
    original: int = 8192
    part: float = 1.0

    def turned(self, head_dim: int) -> int:
        """How many numbers of a head are turned; the rest stay."""
        return int(head_dim * self.part)


def frequencies(rotary: Rotary, head_dim: int) -> Float[Array, "half"]:
    """Angle per position of each pair: theta^(-2i/n) of n turned numbers, low frequencies stretched if asked."""
    n = rotary.turned(head_dim)
    freq = rotary.theta ** -(jnp.arange(0, n, 2, dtype=jnp.float32) / n)
    if rotary.scaling == "linear":
        return freq / rotary.factor
    if rotary.scaling == "llama3":
        turns = rotary.original * freq / (2 * math.pi)
        keep = jnp.clip((turns - rotary.low) / (rotary.high - rotary.low), 0.0, 1.0)
        return freq * (keep + (1 - keep) / rotary.factor)
    return freq


def rotate(
    x: Float[Array, "b t h dh"], positions: Int[Array, "b t"], steps: Float[Array, "half"]
) -> Float[Array, "b t h dh"]:
    """Turn pairs (i, i + half) of each head by position times `steps`; angles in float32, x's dtype out.

    What lies behind the first 2 half numbers of a head stays.
    """
    n = 2 * steps.shape[0]
    angles = positions[:, :, None, None].astype(jnp.float32) * steps[None, None, None]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    left, right = jnp.split(x[..., :n].astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1).astype(x.dtype)
    return turned if n == x.shape[-1] else jnp.concatenate([turned, x[..., n:]], axis=-1)
