"""One transformer block for every base, its scanned stack, and the cutting of stacked parameters."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Array, Int

from moejax.models.layers import MLP, Attention, BlockConfig, Join
from moejax.models.norms import make_norm
from moejax.models.remat import Remat, rematerialised
from moejax.models.stream import Context, Stream
from moejax.parallel.rules import by_rows
from moejax.types import PyTree


class Block(nn.Module):
    """Attention and MLP, each closed by a Join; norms before the sub-layers unless `config.post`.

    parallel: both read one norm of the stream, and `mlp_join` closes them together.
    """

    config: BlockConfig

    def setup(self):
        c = self.config
        self.attn, self.mlp, self.mlp_join = Attention(c), MLP(c), Join(c)
        if not c.parallel:
            self.attn_join = Join(c)
        if not c.post:
            self.attn_norm = make_norm(c.norm, c.eps, c.dtype)
            if not c.parallel:
                self.mlp_norm = make_norm(c.norm, c.eps, c.dtype)

    def __call__(self, carry: Stream, ctx: Context, layer: Int[Array, ""]) -> tuple[Stream, None]:
        """The stream after this block; `layer` is its number, counted from the bottom of the whole base."""
        x, cache = by_rows(carry.x), carry.cache
        read = x if self.config.post else self.attn_norm(x)
        h, cache = self.attn(read, ctx, layer, cache)
        if self.config.parallel:
            return Stream(self.mlp_join(x, h + self.mlp(read)), cache), None
        x = self.attn_join(x, h)
        h = self.mlp(x if self.config.post else self.mlp_norm(x))
        return Stream(self.mlp_join(x, h), cache), None


def stacked(config: BlockConfig, remat: Remat, block: type[nn.Module] = Block, **fields: Any) -> nn.Module:
    """Blocks under one scan, parameters stacked on a leading layer axis, called (stream, ctx, layers [l]).

    remat: what a block computes again in the backward pass (`remat`).
    block, fields: another kind of block, called alike, and what it is made with beside the config.
    Every collection rides the layer axis, so that collections the base never heard of reach the blocks.
    """
    body = rematerialised(block, remat)
    axes: Any = (nn.broadcast, 0)  # ctx for all, one number of `layers` for each
    scan = nn.scan(body, variable_axes={True: 0}, split_rngs={"params": True}, in_axes=axes)
    return scan(config, **fields)


def slice_layers(tree: PyTree, lo: int, hi: int) -> PyTree:
    """Cut every sub-tree named "layers" to rows lo .. hi - 1; takes `params` as well as `{"params": params}`.

    With it `model.apply(slice_layers(variables, lo, hi), stream, ctx, jnp.arange(lo, hi), method="part")`
    runs those layers alone, bit-equal in float32 to the full run (for batches of toy size, XLA may compile
    a single layer otherwise than a scanned one: seen 1e-6 at 21 tokens of width 32).
    """
    if not isinstance(tree, Mapping):
        return tree
    return {
        name: jax.tree.map(lambda leaf: leaf[lo:hi], sub) if name == "layers" else slice_layers(sub, lo, hi)
        for name, sub in tree.items()
    }
