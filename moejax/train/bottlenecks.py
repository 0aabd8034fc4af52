"""Bottleneck adapters trained as experts: how, where, and from what they start."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import jax

from moejax.contract import Rows
from moejax.experts import bottleneck
from moejax.experts.expert import Expert, SiteKey
from moejax.models.base import Base
from moejax.train.experts import together
from moejax.train.optimiser import Optimiser
from moejax.train.rows import seed_of
from moejax.train.work import Work

PATHS = {"pfeiffer": ("layers/mlp_join",), "houlsby": ("layers/attn", "layers/mlp")}
Act = Literal["relu", "gelu", "gelu_new", "swish", "tanh", "leakyrelu"]


@dataclass(frozen=True)
class BottleneckRecipe:
    """How a bottleneck expert is trained; it stands in the layers that LoRA experts adapt."""

    placement: Literal["pfeiffer", "houlsby"] = "pfeiffer"
    """`pfeiffer`: one a layer, at the join after the MLP; `houlsby`: two, after attention and after the MLP."""
    reduction: int = 16
    """Width of the base over the width of the bottleneck."""
    act: Act = "relu"
    """Non-linearity, by AdapterHub's name."""
    batch: int = 32
    """Rows of each expert in a step."""
    optimiser: Optimiser = Optimiser(5e-3, 15)
    """How its factors and biases are trained."""


def fresh_bottleneck(
    name: str, d: int, sites: Collection[SiteKey], recipe: BottleneckRecipe, seed: int
) -> Expert:
    """An expert before training: factors N(0, 0.02^2) from the seed and the expert's name, biases 0."""
    key, made, rank = jax.random.key(seed_of(name, seed)), {}, max(1, d // recipe.reduction)
    for path, layer in sites:
        own = jax.random.fold_in(key, seed_of(f"{path}:{layer}", 0))
        made[path, layer] = bottleneck.init(own, d, rank, recipe.act)
    return Expert(name, {}, {}, made)


def train_bottlenecks(
    base: Base,
    rows: Mapping[str, Rows],
    recipe: BottleneckRecipe,
    work: Work,
    layers: Collection[int] | None = None,
) -> dict[str, Expert]:
    """One expert a name, trained together as `train_together` does; layers: those that are adapted, None: all."""
    chosen = range(base.layers) if layers is None else layers
    sites = [(path, layer) for path in PATHS[recipe.placement] for layer in chosen]
    d = base.model.config.width  # pyright: ignore[reportAttributeAccessIssue]
    before = [fresh_bottleneck(name, d, sites, recipe, work.seed) for name in sorted(rows)]
    return together(base, before, rows, recipe.batch, recipe.optimiser, work)
