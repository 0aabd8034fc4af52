"""The parts of a block: norms, rotary positions, attention, MLPs, and the joins that close sub-layers.

Every linear is a named 2-D `nn.Dense`, so that a site is `[d] -> [f]`. Heads are reshaped outside.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from moejax.models.stream import Cache, Context

ACTIVATIONS = {
    "gelu": partial(nn.gelu, approximate=False),
    "gelu_tanh": partial(nn.gelu, approximate=True),
    "relu": nn.relu,
    "silu": nn.silu,
}


@dataclass(frozen=True)
class Rotary:
    """Rotary positions: base `theta`, and the stretching of low frequencies ("linear" or "llama3").

    Source: Su et al. 2021 (RoFormer), section 3.2.2; stretching as in Llama 3.1.
    """

    theta: float = 10000.0
    scaling: Literal["none", "linear", "llama3"] = "none"
    factor: float = 1.0
    low: float = 1.0
    high: float = 4.0
    original: int = 8192


@dataclass(frozen=True)
class BlockConfig:
    """One block: sizes, norm (kind and place), biases, MLP form and positions."""

    width: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    norm: Literal["layer", "rms"]
    post: bool
    gated: bool
    activation: str
    eps: float
    qkv_bias: bool
    out_bias: bool
    mlp_bias: bool
    rotary: Rotary | None
    dtype: str
    scale: float | None = None  # of the attention's logits; None: head_dim^-0.5


def make_norm(kind: str, eps: float, dtype: str) -> nn.Module:
    """LayerNorm or RMSNorm, statistics in float32, result in `dtype`."""
    made = nn.LayerNorm if kind == "layer" else nn.RMSNorm
    return made(eps, dtype=jnp.dtype(dtype), param_dtype=jnp.dtype(dtype), use_fast_variance=False)


def make_dense(features: int, bias: bool, dtype: str) -> nn.Dense:
    """One linear site, parameters and result in `dtype`."""
    return nn.Dense(features, use_bias=bias, dtype=jnp.dtype(dtype), param_dtype=jnp.dtype(dtype))


def frequencies(rotary: Rotary, head_dim: int) -> Float[Array, "half"]:
    """Angle per position of each pair: theta^(-2i/dh), low frequencies stretched if asked."""
    freq = rotary.theta ** -(jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    if rotary.scaling == "linear":
        return freq / rotary.factor
    if rotary.scaling == "llama3":
        turns = rotary.original * freq / (2 * math.pi)
        keep = jnp.clip((turns - rotary.low) / (rotary.high - rotary.low), 0.0, 1.0)
        return freq * (keep + (1 - keep) / rotary.factor)
    return freq


def rotate(
    x: Float[Array, "b t h dh"], positions: Int[Array, "b t"], rotary: Rotary
) -> Float[Array, "b t h dh"]:
    """Turn pairs (i, i + dh/2) of each head by position times frequency; angles in float32, x's dtype out."""
    steps = frequencies(rotary, x.shape[-1])[None, None, None]
    angles = positions[:, :, None, None].astype(jnp.float32) * steps
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    left, right = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1)
    return turned.astype(x.dtype)


class Attention(nn.Module):
    """Grouped-query attention with sites q, k, v, o; writes and reads the carried cache when there is one."""

    config: BlockConfig

    def setup(self):
        c = self.config
        self.q = make_dense(c.heads * c.head_dim, c.qkv_bias, c.dtype)
        self.k = make_dense(c.kv_heads * c.head_dim, c.qkv_bias, c.dtype)
        self.v = make_dense(c.kv_heads * c.head_dim, c.qkv_bias, c.dtype)
        self.o = make_dense(c.width, c.out_bias, c.dtype)

    def __call__(
        self, x: Float[Array, "b t d"], ctx: Context, layer: Int[Array, ""], cache: Cache | None
    ) -> tuple[Float[Array, "b t d"], Cache | None]:
        """softmax(q k^T / sqrt(dh)) v over the slots that `ctx.mask` shows; softmax in float32."""
        heads = (*x.shape[:2], -1, self.config.head_dim)
        q, k, v = (site(x).reshape(heads) for site in (self.q, self.k, self.v))
        if self.config.rotary is not None:
            q = rotate(q, ctx.positions, self.config.rotary)
            k = rotate(k, ctx.positions, self.config.rotary)
        if cache is not None:
            cache = cache._replace(k=_write(cache.k, k, layer, ctx.at), v=_write(cache.v, v, layer, ctx.at))
            k, v = (jax.lax.dynamic_index_in_dim(a, layer, keepdims=False) for a in (cache.k, cache.v))
        mixed = jax.nn.dot_product_attention(q, k, v, bias=ctx.bias, mask=ctx.mask, scale=self.config.scale)
        return self.o(mixed.reshape(*x.shape[:2], -1)), cache


def _write(
    store: Float[Array, "l b s g dh"],
    new: Float[Array, "b t g dh"],
    layer: Int[Array, ""],
    at: Int[Array, ""],
) -> Float[Array, "l b s g dh"]:
    return jax.lax.dynamic_update_slice(store, new[None].astype(store.dtype), (layer, 0, at, 0, 0))


class MLP(nn.Module):
    """down(act(up(x))), or gated down(act(gate(x)) * up(x))."""

    config: BlockConfig

    def setup(self):
        c = self.config
        self.up = make_dense(c.hidden, c.mlp_bias, c.dtype)
        if c.gated:
            self.gate = make_dense(c.hidden, c.mlp_bias, c.dtype)
        self.down = make_dense(c.width, c.mlp_bias, c.dtype)

    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        """The MLP of each token."""
        act = ACTIVATIONS[self.config.activation]
        return self.down(act(self.gate(x)) * self.up(x) if self.config.gated else act(self.up(x)))


class Join(nn.Module):
    """Closes a sub-layer: norm(x + h) in a post-norm block, x + h in a pre-norm one; owns the post-norm."""

    config: BlockConfig

    def setup(self):
        if self.config.post:
            self.norm = make_norm(self.config.norm, self.config.eps, self.config.dtype)

    def __call__(self, x: Float[Array, "b t d"], h: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        """x the residual, h the sub-layer's output."""
        return self.norm(x + h) if self.config.post else x + h
