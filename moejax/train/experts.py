"""Experts trained independently, but together: stacked LoRAs over one frozen base, each row bound to its expert."""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import numpy as np

from moejax.adapted import Adapted
from moejax.contract import Rows
from moejax.experts import lora
from moejax.experts.bank import Bank, stack
from moejax.experts.expert import Expert
from moejax.models.base import Base
from moejax.places import LINEARS, Lora, own_expert
from moejax.train.optimiser import Optimiser
from moejax.train.rows import bound, seed_of
from moejax.train.work import Work
from moejax.types import PyTree


@dataclass(frozen=True)
class Recipe:
    """How a LoRA expert is trained."""

    rank: int = 8
    """Rank of the two factors."""
    alpha: float = 16.0
    """The update is scaled by alpha / rank."""
    targets: tuple[str, ...] = (
        "layers/attn/q", "layers/attn/k", "layers/attn/v", "layers/attn/o", "layers/mlp/up", "layers/mlp/down"
    )  # fmt: skip
    """Paths of the linears that are adapted."""
    layers: tuple[int, ...] | None = None
    """Layers that are adapted; None: all."""
    batch: int = 32
    """Rows of each expert in a step."""
    optimiser: Optimiser = Optimiser(5e-3, 15)
    """How its factors are trained."""


def fresh(base: Base, name: str, recipe: Recipe, seed: int) -> Expert:
    """An expert before training: A ~ N(0, 1/d) from the seed and the expert's name, B = 0."""
    key, loras = jax.random.key(seed_of(name, seed)), {}
    layers = range(base.layers) if recipe.layers is None else recipe.layers
    for path in recipe.targets:
        d, f = base.shapes[path]
        for layer in layers:
            own = jax.random.fold_in(key, seed_of(f"{path}:{layer}", 0))
            loras[path, layer] = lora.init(own, d, f, recipe.rank, recipe.alpha)
    return Expert(name, {}, loras)


def train_together(
    base: Base, rows: Mapping[str, Rows], recipe: Recipe, work: Work, name: str = "experts"
) -> dict[str, Expert]:
    """Train one expert a name, all in one program, each on its own rows with its own optimiser state.

    The numbers are those of training each alone: seeds come from names, and no quantity is shared.
    """
    names = sorted(rows)
    before = [fresh(base, one, recipe, work.seed) for one in names]
    bank = stack(before, base.shapes, base.layers)
    trained = work.train(
        name, Adapted(base.model, ((LINEARS, Lora("output")),), route=own_expert),
        {"params": base.params, "bank": bank, "router": {}, "labels": base.labels}, trainable(bank),
        bound(rows, names, recipe.batch, work.seed), recipe.optimiser, together=True,
    )["bank"]["sites"]  # fmt: skip
    return {one.name: _after(one, bank, trained, e) for e, one in enumerate(before)}


def trainable(bank: Bank) -> PyTree:
    """The factors of a bank as a sub-tree of the arrays."""
    return {"bank": {"sites": {path: {"a": s.a, "b": s.b} for path, s in bank.sites.items()}}}


def _after(expert: Expert, bank: Bank, trained: PyTree, e: int) -> Expert:
    loras = {}
    for (path, layer), one in expert.loras.items():
        slot, r = int(bank.sites[path].slot[layer]), lora.rank(one)
        a, b = (np.array(trained[path][leaf][slot, e, :r]) for leaf in ("a", "b"))
        loras[path, layer] = one._replace(a=a, b=b)
    return expert._replace(loras=loras)
