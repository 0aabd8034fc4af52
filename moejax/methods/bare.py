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


def any_kind(config: Config) -> str:
    """No expert is used, of whatever kind."""
    return ""


METHOD = Method(Card("base", "Base model", open=True), Config, adapt, kind=any_kind, few=True)
