"""Own-expert oracle: every row is answered by the expert of its own task. It is told the task: a leak."""

from dataclasses import dataclass
from typing import Literal

from moejax.adapted import Adapted
from moejax.contract import Method, chosen_kind
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

    kind: Literal["any", "lora", "bottleneck"] = "any"


def adapt(config: Config, base: Base) -> Adapted:
    """One expert a row."""
    return Adapted(base.model, EXPERTS, route=own_expert)


METHOD = Method(CARD, Config, adapt, kind=chosen_kind)
