"""A bidirectional post-norm encoder: BERT, MiniLM, RoBERTa."""

from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from moejax.aggregation.rule import Formulation
from moejax.models.block import stacked
from moejax.models.layers import BlockConfig
from moejax.models.norms import make_norm
from moejax.models.remat import Remat
from moejax.models.stream import Cache, Context, Stream, context
from moejax.types import UserError


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of a BERT-like encoder; `positions` is the longest text, `types` the segment kinds.

    offset: rows of the position table before that of the first token (RoBERTa: number of the padding token + 1).
    `temperature` divides the cosine between a text and a label: the base's own head.
    """

    vocab: int
    width: int
    layers: int
    heads: int
    hidden: int
    positions: int = 512
    types: int = 2
    activation: str = "gelu"
    eps: float = 1e-12
    dtype: str = "float32"
    remat: Remat = True
    formulation: Formulation | None = None  # how routed experts are mixed; None: the quickest way
    temperature: float = 0.05
    offset: int = 0

    @property
    def block(self) -> BlockConfig:
        """The blocks of this encoder."""
        return BlockConfig(
            width=self.width, hidden=self.hidden, heads=self.heads, kv_heads=self.heads,
            head_dim=self.width // self.heads, norm="layer", post=True, gated=False,
            activation=self.activation, eps=self.eps, qkv_bias=True, out_bias=True, mlp_bias=True,
            rotary=None, dtype=self.dtype,
        )  # fmt: skip


class Encoder(nn.Module):
    """Word, position and type embeddings with a norm, then post-norm blocks (Devlin et al. 2019)."""

    config: EncoderConfig

    def setup(self):
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        table = partial(nn.Embed, features=c.width, dtype=dtype, param_dtype=dtype)
        self.embed, self.type = table(c.vocab), table(c.types)
        self.position = table(c.positions + c.offset)
        self.embed_norm = make_norm("layer", c.eps, c.dtype)
        self.layers = stacked(c.block, c.remat)

    def start(
        self, tokens: Int[Array, "b t"], mask: Bool[Array, "b t"], cache: Cache | None = None
    ) -> tuple[Float[Array, "b t d"], Context]:
        """What enters layer 0, and the context of all layers.

        Raises UserError for texts longer than the position table, ValueError for a cache.
        """
        if cache is not None:
            raise ValueError("an encoder keeps no cache: every token sees every other")
        if tokens.shape[1] > self.config.positions:
            given, most = tokens.shape[1], self.config.positions
            raise UserError(f"a text of {given} tokens is too long for {most} positions: cut the text")
        ctx = context(mask, causal=False)
        places = ctx.positions + self.config.offset
        x = self.embed(tokens) + self.type(jnp.zeros_like(tokens)) + self.position(places)
        return self.embed_norm(x), ctx

    def part(self, stream: Stream, ctx: Context, layers: Int[Array, "l"]) -> Stream:
        """Run the blocks whose parameters are given; `layers` are their numbers in the whole base."""
        return self.layers(stream, ctx, layers)[0]

    def finish(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        """Nothing: the last block ends in its norm."""
        return x

    def __call__(
        self, tokens: Int[Array, "b t"], mask: Bool[Array, "b t"], cache: Cache | None = None
    ) -> tuple[Float[Array, "b t d"], Cache | None]:
        """Hidden states of the last layer; the cache is always None."""
        x, ctx = self.start(tokens, mask, cache)
        stream = self.part(Stream(x, None), ctx, jnp.arange(self.config.layers))
        return self.finish(stream.x), None
