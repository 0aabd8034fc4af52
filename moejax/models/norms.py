"""Norms: LayerNorm and RMSNorm, RMSNorm whose gain is 1 + w, and a norm of each head. Statistics in float32."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Kind = Literal["layer", "rms", "shifted"]


class ShiftedNorm(nn.Module):
    """x / sqrt(mean x^2 + eps) * (1 + w), multiplied in float32 (Gemma)."""

    epsilon: float
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        """The normed activations, in the module's dtype."""
        gain = self.param("scale", nn.initializers.zeros, (x.shape[-1],), jnp.dtype(self.dtype))
        return (rms(x, self.epsilon) * shifted(gain, x.ndim)).astype(self.dtype)


class HeadNorm(nn.Module):
    """RMSNorm of each head of a query or key by itself, with one gain for all heads (Dehghani et al. 2023; Qwen 3)."""

    kind: Kind
    size: int
    epsilon: float
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "b t f"]) -> Float[Array, "b t f"]:
        """Heads side by side in, and out."""
        heads = x.reshape(*x.shape[:2], -1, self.size)
        first = nn.initializers.zeros if self.kind == "shifted" else nn.initializers.ones
        gain = self.param("scale", first, (self.size,), jnp.dtype(self.dtype))
        if self.kind == "shifted":
            normed = rms(heads, self.epsilon) * shifted(gain, 4)
        else:
            normed = rms(heads, self.epsilon) * gain.astype(jnp.float32)[None, None, None]
        return normed.astype(self.dtype).reshape(x.shape)


def rms(x: Float[Array, "*b d"], eps: float) -> Float[Array, "*b d"]:
    """x / sqrt(mean x^2 + eps), float32."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + eps)


def shifted(gain: Float[Array, "d"], rank: int) -> Float[Array, "*b d"]:
    """1 + w, float32, with axes before it."""
    return (1.0 + gain.astype(jnp.float32)).reshape((1,) * (rank - 1) + gain.shape)


def make_norm(kind: Kind, eps: float, dtype: str) -> nn.Module:
    """A norm of the stream, statistics in float32, result in `dtype`."""
    if kind == "shifted":
        return ShiftedNorm(eps, dtype)
    made = nn.LayerNorm if kind == "layer" else nn.RMSNorm
    return made(eps, dtype=jnp.dtype(dtype), param_dtype=jnp.dtype(dtype), use_fast_variance=False)
