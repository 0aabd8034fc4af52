"""Token gate: our own baseline. A gate per linear and token, learned on the experts' pooled labelled data.

w = softmax over experts of LN(x) . g_e, all experts used; g from 0, so it starts as the uniform merge.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from moejax.adapted import Adapted
from moejax.contract import Fitted, Grants, Method, count_alive
from moejax.experts.bank import factored
from moejax.experts.pool import Pool
from moejax.joint import Site
from moejax.models.base import Base
from moejax.places import LINEARS, Lora
from moejax.routing import scores, select
from moejax.taxonomy import Card, infobox
from moejax.train.optimiser import Optimiser
from moejax.train.rows import pooled
from moejax.types import Weights

CARD = Card(
    "token_gate", "Token gate (ours)",
    axes=infobox("Standard", "Shared", "Expert", "Step", "Module", "Dense", "Output",
                 "In-Distribution | Out-of-Distribution", "Zero-Shot"),
    grants=frozenset({"expert_labels"}), holds=frozenset({"simplex", "single", "silent", "equivariant"}),
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Steps, rows a step and rate of the gates' training."""

    steps: int = 40
    batch: int = 32
    rate: float = 1e-2


def score(site: Site, x: Float[Array, "b t d"]) -> Weights:
    """Step weights [b, t, e]."""
    return select.softmax(site.dots(x, "gate", scores.standardise), site.present)


def adapt(config: Config, base: Base) -> Adapted:
    """Every linear scores its own input."""
    return Adapted(base.model, ((LINEARS, Lora("output", score)),))


def fit(config: Config, base: Base, pool: Pool, grants: Grants, work: Any) -> Fitted:
    """Train all gates together on the experts' own training rows, unaware of whose row it is."""
    rows = {name: grants.expert_labels(name).train for name in pool.names}
    gates = {p: {"gate": jnp.zeros(s.a.shape[:2] + s.a.shape[3:])} for p, s in factored(pool.bank).items()}
    start = {"places": gates, "knobs": {}}
    arrays = METHOD.arrays(config, base, pool, Fitted(start, pool.names))
    stream = pooled(rows, pool.names, config.batch, work.seed)
    optimiser = Optimiser(config.rate, config.steps)
    trained = work.train(
        "gates", adapt(config, base), arrays, {"router": {"places": gates}}, stream, optimiser
    )
    return Fitted(start | trained["router"], pool.names, trained=count_alive(gates, pool.bank))


METHOD = Method(CARD, Config, adapt, fit=fit)
