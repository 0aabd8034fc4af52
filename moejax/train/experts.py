"""Experts trained independently, but together: stacked over one frozen base, each row bound to its expert."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import jax
import numpy as np

from moejax.adapted import Adapted
from moejax.contract import Rows
from moejax.experts import bank as banks
from moejax.experts import lora
from moejax.experts.bank import Bank, stack
from moejax.experts.expert import Expert, SiteKey
from moejax.models.base import Base
from moejax.places import LINEARS, Lora, Worn, bottlenecks, own_expert
from moejax.train.optimiser import Optimiser
from moejax.train.rows import bound, seed_of
from moejax.train.work import Work
from moejax.types import PyTree

FACTORS = ("a", "b", "a_bias", "b_bias")  # the leaves of a stack that are trained


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
    if base.kind == "seq2seq" and recipe.layers is None:  # one side may have fewer blocks
        sites = [site for site in sites if site in base.sites.values() or site[0] not in base.shapes]
    recipes = {one: replace(recipe, rank=(ranks or {}).get(one, recipe.rank)) for one in names}
    before = [fresh(base.shapes, one, sites, recipes[one], work.seed) for one in names]
    return together(base, before, rows, recipe.batch, recipe.optimiser, work, name)


def together(
    base: Base,
    before: Sequence[Expert],
    rows: Mapping[str, Rows],
    batch: int,
    optimiser: Optimiser,
    work: Work,
    name: str = "experts",
) -> dict[str, Expert]:
    """The experts after training, whatever their kind; `batch` rows of each in a step."""
    names, bank = [one.name for one in before], stack(before, base.shapes, base.layers)
    places = ((LINEARS, Lora("output")), *bottlenecks(Worn()))
    trained = work.train(
        name, Adapted(base.model, places, route=own_expert),
        {"params": base.params, "bank": bank, "router": {}, "labels": base.labels}, trainable(bank),
        bound(rows, names, batch, work.seed), optimiser, together=names,
    )  # fmt: skip
    after = with_factors(bank, trained)
    return {one.name: banks.expert(after, names, e, like=one) for e, one in enumerate(before)}


def trainable(bank: Bank) -> PyTree:
    """The factors of a bank, and the biases of bottleneck adapters, as a sub-tree of the arrays."""
    names = {path: [name for name in FACTORS if name in s._fields] for path, s in bank.sites.items()}
    sites = {path: {n: getattr(bank.sites[path], n) for n in some} for path, some in names.items()}
    return {"bank": {"sites": sites}}


def with_factors(bank: Bank, trained: PyTree) -> Bank:
    """The bank with the factors that training gave, laid out as in `trainable`."""
    sites = {path: bank.sites[path]._replace(**leaves) for path, leaves in trained["bank"]["sites"].items()}
    return bank._replace(sites=sites)
