"""Own-expert oracle: every row is answered by the expert of its own task. It is told the task: a leak."""

from dataclasses import dataclass
from typing import Any, Literal

from moejax.adapted import Adapted
from moejax.contract import Fitted, Grants, Method, chosen_kind, nothing_fitted, routable
from moejax.experts.pool import Pool
from moejax.models.base import Base
from moejax.places import EXPERTS, own_expert
from moejax.taxonomy import Card, infobox

CARD = Card(
    "own_expert", "Own-expert oracle",
    axes=infobox("Standard", "Private", "None", "Task", "Model", "Sparse", "None", "In-Distribution",
                 "Zero-Shot"),
    grants=frozenset({"test_task"}), holds=frozenset({"simplex", "single", "silent"}),
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """The kind of experts: those of the run's pool, whatever they are, or of the pool of a kind beside it."""

    kind: Literal["any", "lora", "bottleneck", "delta"] = "any"


def adapt(config: Config, base: Base) -> Adapted:
    """One expert a row."""
    return Adapted(base.model, EXPERTS, route=own_expert)


def fit(config: Config, base: Base, pool: Pool, grants: Grants, work: Any) -> Fitted:
    """Nothing is learned. Raises NotApplicable where experts differ in what cannot vary from row to row."""
    return nothing_fitted(config, base, routable(pool), grants, work)


METHOD = Method(CARD, Config, adapt, fit=fit, kind=chosen_kind, few=True)
