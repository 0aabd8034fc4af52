"""A causal pre-norm decoder: Llama, Mistral, Qwen, Phi, Gemma, GPT-2."""

from dataclasses import dataclass, field
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from moejax.aggregation.rule import Formulation
from moejax.models.block import stacked
from moejax.models.layers import BlockConfig, Rotary, ScaledEmbed, make_dense
from moejax.models.norms import Kind, make_norm
from moejax.models.remat import Remat
from moejax.models.stream import Cache, Context, Stream, advance, context
from moejax.types import UserError


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes and options of a decoder; `window` None: every earlier token is seen.

    local     which layers see the window only; None: all of them
    local_rotary  rotary positions of those layers; None: as of the others
    learned   rows of a table of positions, in place of rotary ones; None: rotary
    scaled    word vectors are multiplied by sqrt(width)
    head_cap  logits become head_cap tanh(logits / head_cap)
    The rest as in `BlockConfig`.
    """

    vocab: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    hidden: int
    head_dim: int | None = None
    activation: str = "silu"
    eps: float = 1e-6
    rotary: Rotary | None = field(default_factory=Rotary)
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    tied: bool = False
    window: int | None = None
    dtype: str = "float32"
    remat: Remat = True
    formulation: Formulation | None = None  # how routed experts are mixed; None: the quickest way
    norm: Kind = "rms"
    gated: bool = True
    sandwich: bool = False
    parallel: bool = False
    fused: bool = False
    qk_norm: bool = False
    cap: float | None = None
    query: int | None = None
    local: tuple[bool, ...] | None = None
    local_rotary: Rotary | None = None
    learned: int | None = None
    scaled: bool = False
    head_bias: bool = False
    head_cap: float | None = None

    @property
    def block(self) -> BlockConfig:
        """The blocks of this decoder."""
        return BlockConfig(
            width=self.width, hidden=self.hidden, heads=self.heads, kv_heads=self.kv_heads,
            head_dim=self.head_dim or self.width // self.heads, norm=self.norm, post=False, gated=self.gated,
            activation=self.activation, eps=self.eps, qkv_bias=self.qkv_bias, out_bias=self.out_bias,
            mlp_bias=self.mlp_bias, rotary=self.rotary, dtype=self.dtype, sandwich=self.sandwich,
            parallel=self.parallel, fused=self.fused, qk_norm=self.qk_norm, cap=self.cap, query=self.query,
            local=self.local, local_rotary=self.local_rotary,
        )  # fmt: skip


def empty_cache(config: DecoderConfig, rows: int, slots: int) -> Cache:
    """A cache for `rows` texts of up to `slots` tokens, prompt and generated together."""
    block = config.block
    store = jnp.zeros((config.layers, rows, slots, block.kv_heads, block.head_dim), config.dtype)
    return Cache(store, store, jnp.zeros((rows, slots), bool), jnp.int32(0))


class Decoder(nn.Module):
    """Word embedding, pre-norm blocks, a norm and a head (Radford et al. 2019; Touvron et al. 2023)."""

    config: DecoderConfig

    def setup(self):
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        table = partial(nn.Embed, features=c.width, dtype=dtype, param_dtype=dtype)
        self.embed = ScaledEmbed(c.vocab, c.width, c.dtype) if c.scaled else table(c.vocab)
        if c.learned is not None:
            self.position = table(c.learned)
        self.layers = stacked(c.block, c.remat)
        self.norm = make_norm(c.norm, c.eps, c.dtype)
        if not c.tied:
            self.lm_head = make_dense(c.vocab, c.head_bias, c.dtype)

    def start(
        self, tokens: Int[Array, "b t"], mask: Bool[Array, "b t"], cache: Cache | None = None
    ) -> tuple[Float[Array, "b t d"], Context]:
        """What enters layer 0, and the context of all layers; the tokens stand at `cache.at`.

        Raises UserError where a text or a cache is longer than the table of learned positions.
        """
        c = self.config
        ctx = context(mask, causal=True, window=c.window, cache=cache, mixed=c.local is not None)
        x = self.embed(tokens)
        if c.learned is None:
            return x, ctx
        slots = ctx.mask.shape[-1]
        if slots > c.learned:
            raise UserError(
                f"{slots} tokens, prompt and answer together, are too many for {c.learned} positions: cut the text"
            )
        return x + self.position(ctx.positions), ctx

    def part(self, stream: Stream, ctx: Context, layers: Int[Array, "l"]) -> Stream:
        """Run the blocks whose parameters are given; `layers` are their numbers in the whole base."""
        return self.layers(stream, ctx, layers)[0]

    def finish(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        """The last norm."""
        return self.norm(x)

    def head(self, x: Float[Array, "... d"]) -> Float[Array, "... v"]:
        """Logits of the next token, from finished states."""
        logits, cap = self.embed.attend(x) if self.config.tied else self.lm_head(x), self.config.head_cap
        return logits if cap is None else cap * jnp.tanh(logits / cap)

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
