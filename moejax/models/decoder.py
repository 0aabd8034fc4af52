"""A causal pre-norm decoder: Llama, Mistral, Qwen 2."""

from dataclasses import dataclass, field

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from moejax.models.block import stacked
from moejax.models.layers import BlockConfig, Rotary, make_dense, make_norm
from moejax.models.stream import Cache, Context, Stream, advance, context


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes and options of a Llama-like decoder; `window` None: every earlier token is seen."""

    vocab: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    hidden: int
    head_dim: int | None = None
    activation: str = "silu"
    eps: float = 1e-6
    rotary: Rotary = field(default_factory=Rotary)
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    tied: bool = False
    window: int | None = None
    dtype: str = "float32"
    remat: bool = True

    @property
    def block(self) -> BlockConfig:
        """The blocks of this decoder."""
        return BlockConfig(
            width=self.width, hidden=self.hidden, heads=self.heads, kv_heads=self.kv_heads,
            head_dim=self.head_dim or self.width // self.heads, norm="rms", post=False, gated=True,
            activation=self.activation, eps=self.eps, qkv_bias=self.qkv_bias, out_bias=self.out_bias,
            mlp_bias=self.mlp_bias, rotary=self.rotary, dtype=self.dtype,
        )  # fmt: skip


def empty_cache(config: DecoderConfig, rows: int, slots: int) -> Cache:
    """A cache for `rows` texts of up to `slots` tokens, prompt and generated together."""
    block = config.block
    store = jnp.zeros((config.layers, rows, slots, block.kv_heads, block.head_dim), config.dtype)
    return Cache(store, store, jnp.zeros((rows, slots), bool), jnp.int32(0))


class Decoder(nn.Module):
    """Word embedding, pre-norm blocks with rotary positions, RMSNorm and a head (Touvron et al. 2023)."""

    config: DecoderConfig

    def setup(self):
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        self.embed = nn.Embed(c.vocab, c.width, dtype=dtype, param_dtype=dtype)
        self.layers = stacked(c.block, c.remat)
        self.norm = make_norm("rms", c.eps, c.dtype)
        if not c.tied:
            self.lm_head = make_dense(c.vocab, False, c.dtype)

    def start(
        self, tokens: Int[Array, "b t"], mask: Bool[Array, "b t"], cache: Cache | None = None
    ) -> tuple[Float[Array, "b t d"], Context]:
        """What enters layer 0, and the context of all layers; the tokens stand at `cache.at`."""
        return self.embed(tokens), context(mask, causal=True, window=self.config.window, cache=cache)

    def part(self, stream: Stream, ctx: Context, layers: Int[Array, "l"]) -> Stream:
        """Run the blocks whose parameters are given; `layers` are their numbers in the whole base."""
        return self.layers(stream, ctx, layers)[0]

    def finish(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        """The last norm."""
        return self.norm(x)

    def head(self, x: Float[Array, "... d"]) -> Float[Array, "... v"]:
        """Logits of the next token, from finished states."""
        return self.embed.attend(x) if self.config.tied else self.lm_head(x)

    def __call__(
        self, tokens: Int[Array, "b t"], mask: Bool[Array, "b t"], cache: Cache | None = None
    ) -> tuple[Float[Array, "b t d"], Cache | None]:
        """Finished hidden states, and the cache with these tokens in it."""
        x, ctx = self.start(tokens, mask, cache)
        stream = self.part(Stream(x, cache), ctx, jnp.arange(self.config.layers))
        hidden = self.finish(stream.x)
        if self.is_initializing():
            self.head(hidden)  # so that init makes the head's parameters too
        return hidden, advance(stream.cache, mask)
