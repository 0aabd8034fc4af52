"""Uniform merge: the mean of the experts, one fixed model.

`output` is the mean of the updates, (1/e) sum s_e B_e A_e; `factor` the product of the mean factors,
(1/e sum s_e B_e)(1/e sum A_e), which has cross terms and depends on each expert's factor basis.
Source: the average of card "static merging", e.g. AdapterSoup (2302.07027) and Ilharco et al. 2022 (2212.04089).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from moejax.adapted import Adapted
from moejax.contract import Fitted, Method
from moejax.experts.merge import Mode
from moejax.experts.pool import Pool
from moejax.models.base import Base
from moejax.places import LINEARS, Lora, Uniform
from moejax.taxonomy import Card, infobox

CARD = Card(
    "uniform", "Uniform merge",
    axes=infobox("Standard", "Private", "None", "Task", "Model", "Dense", "Parameter",
                 "In-Distribution | Out-of-Distribution", "Zero-Shot"),
    open=True, holds=frozenset({"simplex", "single", "silent", "equivariant"}),
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Whether updates (`output`) or factors (`factor`) are averaged."""

    aggregation: Mode = "output"


def adapt(config: Config, base: Base) -> Adapted:
    """The same weight on every expert, everywhere."""
    return Adapted(base.model, ((LINEARS, Lora(config.aggregation, Uniform())),))


def merge(config: Config, pool: Pool, fitted: Fitted) -> tuple[Float[np.ndarray, "e"], Mode]:
    """One over the number of experts."""
    alive = np.asarray(pool.bank.alive, np.float32)
    return alive / max(alive.sum(), 1.0), config.aggregation


METHOD = Method(CARD, Config, adapt, merge=merge)
