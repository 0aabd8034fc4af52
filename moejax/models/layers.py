"""The parts of a block: attention, MLPs, the joins that close sub-layers, and embeddings.

Every linear is a named 2-D `nn.Dense`, so that a site is `[d] -> [f]`. Heads are reshaped outside.
"""

from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from moejax.models.norms import HeadNorm, Kind, make_norm
from moejax.models.quantised import product, promoted
from moejax.models.rotary import Rotary, frequencies, rotate
from moejax.models.stream import Cache, Context

ACTIVATIONS = {
    "gelu": partial(nn.gelu, approximate=False),
    "gelu_tanh": partial(nn.gelu, approximate=True),
    "relu": nn.relu,
    "silu": nn.silu,
}


@dataclass(frozen=True)
class BlockConfig:
    """One block: sizes, norm (kind and place), biases, MLP form and positions.

    post      norm(x + h) closes a sub-layer, and no norm opens it
    sandwich  x + norm(h) closes it, and a norm opens it
    parallel  attention and MLP read one norm of x, and one join closes both
    fused     q, k and v are one linear, and so are gate and up
    qk_norm   each head of q and k is normed before its turn
    cap       attention logits become cap tanh(logits / cap)
    query     attention logits are divided by its root; None: the head size
    local     which layers see a window only; None: all alike
    local_rotary  positions in those layers; None: as in the others
    """

    width: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    norm: Kind
    post: bool
    gated: bool
    activation: str
    eps: float
    qkv_bias: bool
    out_bias: bool
    mlp_bias: bool
    rotary: Rotary | None
    dtype: str
    sandwich: bool = False
    parallel: bool = False
    fused: bool = False
    qk_norm: bool = False
    cap: float | None = None
    query: int | None = None
    local: tuple[bool, ...] | None = None
    local_rotary: Rotary | None = None
    scale: float | None = None  # of the attention's logits; None: (query or head_dim)^-0.5


def make_dense(features: int, bias: bool, dtype: str) -> nn.Dense:
    """One linear site, parameters and result in `dtype`; its kernel may be quantised."""
    kind = jnp.dtype(dtype)
    return nn.Dense(features, bias, kind, kind, promote_dtype=promoted, dot_general=product)


class Attention(nn.Module):
    """Grouped-query attention with sites q, k, v (or qkv) and o; writes and reads the carried cache if there is one."""

    config: BlockConfig

    def setup(self):
        c = self.config
        sizes = {"q": c.heads * c.head_dim, "k": c.kv_heads * c.head_dim, "v": c.kv_heads * c.head_dim}
        if c.fused:
            self.qkv = make_dense(sum(sizes.values()), c.qkv_bias, c.dtype)
        else:
            self.q, self.k, self.v = (make_dense(size, c.qkv_bias, c.dtype) for size in sizes.values())
        self.o = make_dense(c.width, c.out_bias, c.dtype)
        if c.qk_norm:
            self.q_norm = HeadNorm(c.norm, c.head_dim, c.eps, c.dtype)
            self.k_norm = HeadNorm(c.norm, c.head_dim, c.eps, c.dtype)

    def __call__(
        self, x: Float[Array, "b t d"], ctx: Context, layer: Int[Array, ""], cache: Cache | None
    ) -> tuple[Float[Array, "b t d"], Cache | None]:
        """softmax(q k^T / sqrt(dh)) v over the slots that the context shows; softmax in float32."""
        c = self.config
        here = None if c.local is None else jnp.asarray(c.local)[layer]
        q, k, v = self._projected(x)
        if c.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (a.reshape(*x.shape[:2], -1, c.head_dim) for a in (q, k, v))
        if c.rotary is not None:
            steps = frequencies(c.rotary, c.head_dim)
            if c.local_rotary is not None and here is not None:
                steps = jnp.where(here, frequencies(c.local_rotary, c.head_dim), steps)
            q, k = rotate(q, ctx.positions, steps), rotate(k, ctx.positions, steps)
        if cache is not None:
            cache = cache._replace(k=_write(cache.k, k, layer, ctx.at), v=_write(cache.v, v, layer, ctx.at))
            k, v = (jax.lax.dynamic_index_in_dim(a, layer, keepdims=False) for a in (cache.k, cache.v))
        mask = ctx.mask if here is None or ctx.local is None else jnp.where(here, ctx.local, ctx.mask)
        scale = (c.query or c.head_dim) ** -0.5 if c.scale is None else c.scale
        mixed = attend(q, k, v, mask, scale, c.cap, ctx.bias)
        return self.o(mixed.reshape(*x.shape[:2], -1)), cache

    def _projected(self, x: Float[Array, "b t d"]) -> tuple[Array, ...]:
        c = self.config
        if not c.fused:
            return self.q(x), self.k(x), self.v(x)
        ends = (c.heads * c.head_dim, (c.heads + c.kv_heads) * c.head_dim)
        return tuple(jnp.split(self.qkv(x), ends, axis=-1))


def attend(
    q: Float[Array, "b t h dh"],
    k: Float[Array, "b s g dh"],
    v: Float[Array, "b s g dh"],
    mask: Bool[Array, "b 1 t s"],
    scale: float,
    cap: float | None = None,
    bias: Float[Array, "b h t s"] | None = None,
) -> Float[Array, "b t h dh"]:
    """softmax(cap tanh(scale q k^T / cap)) v over what the mask shows, without a cap softmax(scale q k^T + bias) v.

    Source: Gemma Team 2024 (Gemma 2), section 2.
    """
    if cap is None:
        return jax.nn.dot_product_attention(q, k, v, bias=bias, mask=mask, scale=scale)
    groups = q.reshape(*q.shape[:2], k.shape[2], -1, q.shape[3])
    far = jnp.finfo(jnp.float32).min

    def one(q: Float[Array, "b t g dh"]) -> Float[Array, "b t g dh"]:
        logits = jnp.einsum("btgd,bsgd->bgts", q, k, preferred_element_type=jnp.float32) * scale
        weights = jax.nn.softmax(jnp.where(mask, cap * jnp.tanh(logits / cap), far))
        return jnp.einsum("bgts,bsgd->btgd", weights.astype(v.dtype), v)

    return jax.vmap(one, in_axes=3, out_axes=3)(groups).reshape(q.shape)


def _write(
    store: Float[Array, "l b s g dh"],
    new: Float[Array, "b t g dh"],
    layer: Int[Array, ""],
    at: Int[Array, ""],
) -> Float[Array, "l b s g dh"]:
    return jax.lax.dynamic_update_slice(store, new[None].astype(store.dtype), (layer, 0, at, 0, 0))


class MLP(nn.Module):
    """down(act(up(x))), or gated down(act(gate(x)) * up(x)); fused: gate and up are halves of the site gate_up."""

    config: BlockConfig

    def setup(self):
        c = self.config
        if c.gated and c.fused:
            self.gate_up = make_dense(2 * c.hidden, c.mlp_bias, c.dtype)
        else:
            self.up = make_dense(c.hidden, c.mlp_bias, c.dtype)
        if c.gated and not c.fused:
            self.gate = make_dense(c.hidden, c.mlp_bias, c.dtype)
        self.down = make_dense(c.width, c.mlp_bias, c.dtype)

    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        """The MLP of each token."""
        act = ACTIVATIONS[self.config.activation]
        if not self.config.gated:
            return self.down(act(self.up(x)))
        gate, up = jnp.split(self.gate_up(x), 2, -1) if self.config.fused else (self.gate(x), self.up(x))
        return self.down(act(gate) * up)


class Join(nn.Module):
    """Closes a sub-layer: norm(x + h) in a post-norm block, x + norm(h) in a sandwich, else x + h; owns the norm."""

    config: BlockConfig

    def setup(self):
        if self.config.post or self.config.sandwich:
            self.norm = make_norm(self.config.norm, self.config.eps, self.config.dtype)

    def __call__(self, x: Float[Array, "b t d"], h: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        """x the residual, h the sub-layer's output."""
        if self.config.sandwich:
            return x + self.norm(h)
        return self.norm(x + h) if self.config.post else x + h


class ScaledEmbed(nn.Module):
    """A word embedding whose vectors are multiplied by sqrt(features), rounded to the dtype (Vaswani et al. 2017)."""

    num_embeddings: int
    features: int
    dtype: str

    def setup(self):
        shape = (self.num_embeddings, self.features)
        self.embedding = self.param("embedding", nn.initializers.normal(), shape, jnp.dtype(self.dtype))

    def __call__(self, inputs: Int[Array, "b t"]) -> Float[Array, "b t d"]:
        """The scaled vectors of the tokens."""
        vectors = jnp.take(self.embedding, inputs, axis=0).astype(self.dtype)
        return vectors * jnp.asarray(self.features**0.5, self.dtype)

    def attend(self, query: Float[Array, "*b d"]) -> Float[Array, "*b v"]:
        """Products with all vectors, not scaled."""
        return jnp.dot(query, self.embedding.T)
