"""Multitask LoRA: one adapter trained on the experts' pooled data; what routing is measured against."""

from dataclasses import dataclass
from typing import Any

from moejax.adapted import Adapted
from moejax.contract import Fitted, Grants, Method, count_alive
from moejax.experts.bank import stack
from moejax.experts.pool import Pool
from moejax.models.base import Base
from moejax.places import LINEARS, Lora, Uniform
from moejax.taxonomy import Card, infobox
from moejax.train.experts import adapted_sites, fresh, trainable, with_factors
from moejax.train.optimiser import Optimiser
from moejax.train.rows import pooled

CARD = Card(
    "multitask", "Multitask LoRA",
    axes=infobox("Custom", "Shared", "Expert", "Task", "Model", "Dense", "None",
                 "In-Distribution | Out-of-Distribution", "Zero-Shot"),
    grants=frozenset({"expert_labels"}), holds=frozenset({"equivariant"}),
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """The one adapter: rank and alpha, and its training. It adapts the linears that the experts adapt."""

    rank: int = 8
    alpha: float = 16.0
    steps: int = 150
    batch: int = 32
    rate: float = 5e-3


def adapt(config: Config, base: Base) -> Adapted:
    """One adapter, weight 1."""
    return Adapted(base.model, ((LINEARS, Lora("output", Uniform())),))


def fit(config: Config, base: Base, pool: Pool, grants: Grants, work: Any) -> Fitted:
    """Train a new LoRA on all experts' training rows in one shuffled pass; it replaces the bank."""
    rows = {name: grants.expert_labels(name).train for name in pool.names}
    bank = stack(
        [fresh(base.shapes, "multitask", adapted_sites(pool.bank), config, work.seed)],
        base.shapes,
        base.layers,
    )
    router, start = {"places": {}, "knobs": {}}, trainable(bank)
    arrays = METHOD.arrays(config, base, pool, Fitted(router, pool.names, bank))
    trained = work.train(
        "adapter", adapt(config, base), arrays, start, pooled(rows, pool.names, config.batch, work.seed),
        Optimiser(config.rate, config.steps),
    )  # fmt: skip
    return Fitted(router, pool.names, with_factors(bank, trained), trained=count_alive(start, bank))


METHOD = Method(CARD, Config, adapt, fit=fit)
