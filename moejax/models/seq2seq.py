"""An encoder, and a decoder that attends to its states: T5, T5 v1.1, Flan-T5.

Three stacks: `encoder_layers` (attn, mlp); `cross_layers`, which make the keys and values of every decoder block
from the encoder's states, once a text; `layers`, the decoder (attn, cross, mlp). Blocks are counted from the top:
the last of each stack has the number `layers` - 1, so that a number means as much in stacks of unequal depth.
"""

from dataclasses import dataclass
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from moejax.aggregation.rule import Formulation
from moejax.models.block import Block, stacked
from moejax.models.distance import bucketed
from moejax.models.layers import BlockConfig, Join, make_dense, make_norm
from moejax.models.remat import Remat
from moejax.models.stream import Cache, Context, Memory, Stream, advance, context
from moejax.parallel.rules import by_rows
from moejax.types import Batch, PyTree


@dataclass(frozen=True)
class Seq2SeqConfig:
    """Sizes and options of a T5; `begin` is the token that the decoder starts from.

    buckets, most: of relative positions (`distance`). tied: the head is the word embedding; shrunk: states are
    multiplied by width^-0.5 before the head.
    """

    vocab: int
    width: int
    encoder_layers: int
    decoder_layers: int
    heads: int
    head_dim: int
    hidden: int
    gated: bool = True
    activation: str = "gelu_tanh"
    eps: float = 1e-6
    buckets: int = 32
    most: int = 128
    tied: bool = False
    shrunk: bool = False
    begin: int = 0
    dtype: str = "float32"
    remat: Remat = True
    formulation: Formulation | None = None  # how routed experts are mixed; None: the quickest way

    @property
    def layers(self) -> int:
        """Depth of the deeper stack."""
        return max(self.encoder_layers, self.decoder_layers)

    @property
    def stacks(self) -> dict[str, int]:
        """Depth of each stack."""
        return {
            "encoder_layers": self.encoder_layers, "cross_layers": self.decoder_layers,
            "layers": self.decoder_layers,
        }  # fmt: skip

    @property
    def block(self) -> BlockConfig:
        """The blocks of both sides."""
        return BlockConfig(
            width=self.width, hidden=self.hidden, heads=self.heads, kv_heads=self.heads, head_dim=self.head_dim,
            norm="rms", post=False, gated=self.gated, activation=self.activation, eps=self.eps, qkv_bias=False,
            out_bias=False, mlp_bias=False, rotary=None, dtype=self.dtype, scale=1.0,
        )  # fmt: skip


class Kept(NamedTuple):
    """What decoding keeps: the decoder's own cache, and what the encoder left (None: it has not run yet)."""

    own: Cache
    memory: Memory | None = None


def nothing_kept(config: Seq2SeqConfig, rows: int, slots: int) -> Kept:
    """Room for `rows` answers of up to `slots` tokens, the start token among them."""
    store = jnp.zeros((config.layers, rows, slots, config.heads, config.head_dim), config.dtype)
    return Kept(Cache(store, store, jnp.zeros((rows, slots), bool), jnp.int32(0)))


def said(config: Seq2SeqConfig, batch: Batch) -> Batch:
    """What the decoder is fed, as a request of its own: the start token, then all but the last of `targets`.

    Of it a pooled statistic may see the start token alone. Without targets there is nothing else.
    """
    tokens = jnp.full((batch.tokens.shape[0], 1), config.begin, jnp.int32)
    seen = jnp.ones_like(tokens, bool)
    if batch.targets is not None:
        scored = jnp.ones_like(batch.targets, bool) if batch.answer is None else batch.answer
        to_the_end = jax.lax.cummax(scored.astype(jnp.int32), axis=1, reverse=True)[:, 1:] > 0
        seen = jnp.concatenate([seen, to_the_end], axis=1)
        tokens = jnp.concatenate([tokens, batch.targets[:, :-1].astype(jnp.int32)], axis=1)
    first = jnp.broadcast_to(jnp.arange(tokens.shape[1]) == 0, tokens.shape)
    return batch._replace(tokens=jnp.where(seen, tokens, config.begin), mask=seen, prompt=first)


class KeysValues(nn.Module):
    """The sites k and v of a decoder block's attention to the encoder."""

    config: BlockConfig

    def setup(self):
        c = self.config
        self.k = make_dense(c.heads * c.head_dim, False, c.dtype)
        self.v = make_dense(c.heads * c.head_dim, False, c.dtype)

    def __call__(self, x: Float[Array, "b s d"]) -> tuple[Float[Array, "b s g dh"], Float[Array, "b s g dh"]]:
        """Keys and values of each state."""
        heads = (*x.shape[:2], -1, self.config.head_dim)
        return self.k(x).reshape(heads), self.v(x).reshape(heads)


class CrossBlock(nn.Module):
    """What a decoder block takes from the encoder's states, which it leaves as they are."""

    config: BlockConfig

    def setup(self):
        self.cross = KeysValues(self.config)

    def __call__(self, carry: Stream, ctx: Context, layer: Int[Array, ""]) -> tuple[Stream, PyTree]:
        """The states, and keys and values; `layer` is the block's number."""
        return carry, self.cross(by_rows(carry.x))


class Cross(nn.Module):
    """The attention of a decoder block to the encoder's states, with sites q and o."""

    config: BlockConfig

    def setup(self):
        c = self.config
        self.q = make_dense(c.heads * c.head_dim, False, c.dtype)
        self.o = make_dense(c.width, False, c.dtype)

    def __call__(self, x: Float[Array, "b t d"], memory: Memory, at: Int[Array, ""]) -> Float[Array, "b t d"]:
        """softmax(q k^T) v over the real tokens of the text, with the keys and values of block `at`."""
        q = self.q(x).reshape(*x.shape[:2], -1, self.config.head_dim)
        k, v = (jax.lax.dynamic_index_in_dim(a, at, axis=1, keepdims=False) for a in (memory.k, memory.v))
        seen = memory.valid[:, None, None, :]
        mixed = jax.nn.dot_product_attention(q, k, v, mask=seen, scale=self.config.scale)
        return self.o(mixed.reshape(*x.shape[:2], -1))


class DecoderBlock(Block):
    """A block that attends to the encoder between attention and MLP; `first`: number of the stack's lowest block."""

    first: int = 0

    def setup(self):
        c = self.config
        self.cross, self.cross_join = Cross(c), Join(c)
        self.cross_norm = make_norm(c.norm, c.eps, c.dtype)
        super().setup()  # last: after it nothing more can be set

    def __call__(self, carry: Stream, ctx: Context, layer: Int[Array, ""]) -> tuple[Stream, None]:
        """The stream after this block; `layer` is its number."""
        x, cache = by_rows(carry.x), carry.cache
        assert ctx.memory is not None
        h, cache = self.attn(self.attn_norm(x), ctx, layer, cache)
        x = self.attn_join(x, h)
        x = self.cross_join(x, self.cross(self.cross_norm(x), ctx.memory, layer - self.first))
        return Stream(self.mlp_join(x, self.mlp(self.mlp_norm(x))), cache), None


class Seq2Seq(nn.Module):
    """One word embedding, pre-norm blocks with RMSNorm and relative positions, a head (Raffel et al. 2020)."""

    config: Seq2SeqConfig

    def setup(self):
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        self.embed = nn.Embed(c.vocab, c.width, dtype=dtype, param_dtype=dtype)
        self.encoder_distance = nn.Embed(c.buckets, c.heads, dtype=dtype, param_dtype=dtype)
        self.distance = nn.Embed(c.buckets, c.heads, dtype=dtype, param_dtype=dtype)
        self.encoder_layers = stacked(c.block, c.remat)
        self.encoder_norm = make_norm("rms", c.eps, c.dtype)
        self.cross_layers = stacked(c.block, c.remat, CrossBlock)
        self.layers = stacked(c.block, c.remat, DecoderBlock, first=c.layers - c.decoder_layers)
        self.norm = make_norm("rms", c.eps, c.dtype)
        if not c.tied:
            self.lm_head = make_dense(c.vocab, False, c.dtype)

    def remember(self, tokens: Int[Array, "b s"], mask: Bool[Array, "b s"]) -> Memory:
        """Run the encoder over the texts: the keys and values that the decoder attends to."""
        c, ctx = self.config, context(mask, causal=False)
        ctx = ctx._replace(bias=self._near(ctx, True))
        stream, _ = self.encoder_layers(Stream(self.embed(tokens)), ctx, self._numbers("encoder_layers"))
        states = Stream(self.encoder_norm(stream.x).astype(c.dtype))
        _, stacks = self.cross_layers(states, ctx, self._numbers("cross_layers"))
        k, v = (jnp.moveaxis(stack, 0, 1) for stack in stacks)  # rows first, as in all of a Context
        return Memory(k, v, mask)

    def start(
        self, tokens: Int[Array, "b t"], mask: Bool[Array, "b t"], cache: Cache | None, memory: Memory
    ) -> tuple[Float[Array, "b t d"], Context]:
        """What enters the decoder's lowest block, and the context of all; the tokens stand at `cache.at`."""
        ctx = context(mask, causal=True, cache=cache)
        return self.embed(tokens), ctx._replace(bias=self._near(ctx, False), memory=memory)

    def head(self, x: Float[Array, "... d"]) -> Float[Array, "... v"]:
        """Logits of the next token, from finished states."""
        x = x * self.config.width**-0.5 if self.config.shrunk else x
        return self.embed.attend(x) if self.config.tied else self.lm_head(x)

    def __call__(
        self,
        tokens: Int[Array, "b s"],
        mask: Bool[Array, "b s"],
        fed: Int[Array, "b t"] | None = None,
        seen: Bool[Array, "b t"] | None = None,
        cache: Kept | None = None,
    ) -> tuple[Float[Array, "b t d"], Kept | None]:
        """Finished states of the decoder, fed `fed` (by default the texts themselves), and what is kept with them.

        The texts are not looked at where `cache` has their memory.
        """
        fed, seen = tokens if fed is None else fed, mask if seen is None else seen
        own, memory = (None, None) if cache is None else cache
        memory = self.remember(tokens, mask) if memory is None else memory
        x, ctx = self.start(fed, seen, own, memory)
        stream = self.layers(Stream(x, own), ctx, self._numbers("layers"))[0]
        hidden, own = self.norm(stream.x), advance(stream.cache, seen)
        if self.is_initializing():
            self.head(hidden)  # so that init makes the head's parameters too
        return hidden, None if own is None else Kept(own, memory)

    def _numbers(self, stack: str) -> Int[Array, "l"]:
        return jnp.arange(self.config.layers - self.config.stacks[stack], self.config.layers)

    def _near(self, ctx: Context, both: bool) -> Float[Array, "b h t s"]:
        """What relative positions add to the logits, the same for all blocks of a side."""
        c, (rows, _, new, slots) = self.config, ctx.mask.shape
        places = bucketed(ctx.at + jnp.arange(new), jnp.arange(slots), c.buckets, c.most, both)
        table = self.encoder_distance if both else self.distance
        return jnp.broadcast_to(jnp.moveaxis(table(places), -1, 0)[None], (rows, c.heads, new, slots))
