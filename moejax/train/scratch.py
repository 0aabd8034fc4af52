"""A decoder trained from nothing, small enough to learn a few hundred facts on a processor."""

from dataclasses import dataclass, replace

from moejax.adapted import Adapted
from moejax.contract import Rows
from moejax.experts.bank import stack
from moejax.models.base import Base
from moejax.models.decoder import DecoderConfig
from moejax.models.weights import random_base
from moejax.train.optimiser import Optimiser
from moejax.train.rows import drawn
from moejax.train.work import Work


@dataclass(frozen=True)
class ScratchRecipe:
    """The shape of a decoder that the run trains itself, and how."""

    width: int = 64
    """Size of the vector that stands for a token."""
    layers: int = 3
    """Number of blocks, attention and MLP each."""
    heads: int = 4
    """Number of heads of attention."""
    hidden: int = 128
    """Size of the vector within a block's MLP."""
    batch: int = 64
    """Number of rows in a step."""
    optimiser: Optimiser = Optimiser(3e-3, 1500, decay=0.1)
    """How its parameters are trained."""


def from_nothing(rows: Rows, vocab: int, recipe: ScratchRecipe, work: Work) -> Base:
    """A Llama-like decoder, kernels N(0, 1 / in) at first, trained to predict the answers of these rows."""
    shape = DecoderConfig(
        vocab=vocab, width=recipe.width, layers=recipe.layers, heads=recipe.heads, kv_heads=recipe.heads,
        hidden=recipe.hidden, remat=False,
    )  # fmt: skip
    base = random_base(shape, work.seed, 1.0)
    free = {"params": base.params}
    arrays = free | {"bank": stack([], base.shapes, base.layers), "router": {}}
    stream = drawn(rows, recipe.batch, work.seed)
    found = work.train("base", Adapted(base.model), arrays, free, stream, recipe.optimiser)
    return replace(base, params=found["params"])
