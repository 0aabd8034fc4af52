"""The bare base model: no expert at all."""

from dataclasses import dataclass

from moejax.adapted import Adapted
from moejax.contract import Method
from moejax.models.base import Base
from moejax.taxonomy import Card


@dataclass(frozen=True)
class Config:
    """Nothing to set."""


def adapt(config: Config, base: Base) -> Adapted:
    """No places."""
    return Adapted(base.model)


METHOD = Method(Card("base", "Base model", open=True), Config, adapt)
