"""Experts trained independently, but together: stacked LoRAs over one frozen base, each row bound to its expert."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import jax
import numpy as np

from moejax.adapted import Adapted
from moejax.contract import Rows
from moejax.experts import lora
from moejax.experts.bank import Bank, stack
from moejax.experts.expert import Expert, SiteKey
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


@runtime_checkable
class Factors(Protocol):
    """What a fresh LoRA is made of."""

    @property
    def rank(self) -> int: ...

    @property
    def alpha(self) -> float: ...


def fresh(
    shapes: Mapping[str, tuple[int, int]], name: str, sites: Iterable[SiteKey], factors: Factors, seed: int
) -> Expert:
    """An expert before training: A ~ N(0, 1/d) from the seed and the expert's name, B = 0."""
    key, loras = jax.random.key(seed_of(name, seed)), {}
    for path, layer in sites:
        own = jax.random.fold_in(key, seed_of(f"{path}:{layer}", 0))
        loras[path, layer] = lora.init(own, *shapes[path], factors.rank, factors.alpha)
    return Expert(name, {}, loras)


def sites_of(recipe: Recipe, layers: int) -> list[SiteKey]:
    """The linears that a recipe adapts, of a base with this many layers."""
    chosen = range(layers) if recipe.layers is None else recipe.layers
    return [(path, layer) for path in recipe.targets for layer in chosen]


def adapted_sites(bank: Bank) -> list[SiteKey]:
    """The linears that any expert of a bank may adapt."""
    slots = {path: np.asarray(stack.slot) for path, stack in bank.sites.items()}
    return [(path, layer) for path, slot in slots.items() for layer in np.flatnonzero(slot >= 0).tolist()]


def train_together(
    base: Base,
    rows: Mapping[str, Rows],
    recipe: Recipe,
    work: Work,
    name: str = "experts",
    ranks: Mapping[str, int] | None = None,
) -> dict[str, Expert]:
    """Train one expert a name, all in one program, each on its own rows with its own optimiser state.

    ranks: of the experts that have another than the recipe's. The numbers are those of training each alone:
    seeds come from names, no quantity is shared, and what pads a smaller rank stays zero.
    """
    names, sites = sorted(rows), sites_of(recipe, base.layers)
    recipes = {one: replace(recipe, rank=(ranks or {}).get(one, recipe.rank)) for one in names}
    before = [fresh(base.shapes, one, sites, recipes[one], work.seed) for one in names]
    bank = stack(before, base.shapes, base.layers)
    trained = work.train(
        name, Adapted(base.model, ((LINEARS, Lora("output")),), route=own_expert),
        {"params": base.params, "bank": bank, "router": {}, "labels": base.labels}, trainable(bank),
        bound(rows, names, recipe.batch, work.seed), recipe.optimiser, together=names,
    )["bank"]["sites"]  # fmt: skip
    return {one.name: _after(one, bank, trained, e) for e, one in enumerate(before)}


def trainable(bank: Bank) -> PyTree:
    """The factors of a bank as a sub-tree of the arrays."""
    return {"bank": {"sites": {path: {"a": s.a, "b": s.b} for path, s in bank.sites.items()}}}


def with_factors(bank: Bank, trained: PyTree) -> Bank:
    """The bank with the factors that training gave, laid out as in `trainable`."""
    sites = {path: bank.sites[path]._replace(**leaves) for path, leaves in trained["bank"]["sites"].items()}
    return bank._replace(sites=sites)


def _after(expert: Expert, bank: Bank, trained: PyTree, e: int) -> Expert:
    loras = {}
    for (path, layer), one in expert.loras.items():
        slot, r = int(bank.sites[path].slot[layer]), lora.rank(one)
        a, b = (np.array(trained[path][leaf][slot, e, :r]) for leaf in ("a", "b"))
        loras[path, layer] = one._replace(a=a, b=b)
    return expert._replace(loras=loras)
