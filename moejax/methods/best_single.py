"""Best single expert: the one that does best on the target's rows, for every request.

`rows="target"` chooses on a few labelled target rows (16 by default); `rows="test"` on the test labels
themselves: a leak, an upper bound on what choosing one expert a task can reach.
Ties in accuracy go to the higher likelihood.
"""

from dataclasses import dataclass
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from moejax.adapted import Adapted
from moejax.contract import Fitted, Grants, Method, chosen_kind
from moejax.experts.bank import size
from moejax.experts.merge import Mode
from moejax.experts.pool import Pool
from moejax.models.base import Base
from moejax.taxonomy import Card, infobox
from moejax.train.outcomes import alone, most_often_right, outcomes
from moejax.train.outcomes import arrays as member_arrays

CARD = Card(
    "best_single", "Best single expert",
    axes=infobox("Standard", "Private", "Target", "Task", "Model", "Sparse", "None", "Out-of-Distribution",
                 "Few-Shot"),
    grants=frozenset({"target_labels"}), shots=16, holds=frozenset({"simplex", "single", "silent", "equivariant"}),
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """On which rows the expert is chosen, and of which kind it is: the run's own pool, or one beside it."""

    rows: Literal["target", "test"] = "target"
    batch: int = 16
    kind: Literal["any", "lora", "bottleneck", "delta"] = "any"


def needs(config: Config) -> frozenset[str]:
    """A few labelled target rows, or the leak."""
    return frozenset({"target_labels" if config.rows == "target" else "test_labels"})


def adapt(config: Config, base: Base) -> Adapted:
    """One expert everywhere; which one is an array, so trying them all compiles once."""
    return alone(base)


def fit(config: Config, base: Base, pool: Pool, grants: Grants, work: Any) -> Fitted:
    """Look up how every expert alone does on the granted rows."""
    rows = grants.target_labels().train if config.rows == "target" else grants.test_labels()

    every = range(len(pool.names))
    best = most_often_right(outcomes(base, pool, rows, config.batch, work, every), every)
    router = {"model": {"expert": jnp.int32(best)}, "places": {}, "knobs": {}}
    return Fitted(router, pool.names, chosen={"expert": f"{len(rows)} labelled {config.rows} rows"})


def merge(config: Config, pool: Pool, fitted: Fitted) -> tuple[Float[np.ndarray, "e"], Mode]:
    """All weight on the expert that was chosen."""
    return np.eye(size(pool.bank), dtype=np.float32)[int(fitted.router["model"]["expert"])], "output"


def arrays(config: Config, base: Base, pool: Pool, fitted: Fitted) -> dict[str, Any]:
    """Those of the member that was chosen."""
    return member_arrays(base, pool, int(fitted.router["model"]["expert"]))


METHOD = Method(
    CARD, Config, adapt, fit=fit, arrays=arrays, grants=needs, kind=chosen_kind, merge=merge, few=True
)
