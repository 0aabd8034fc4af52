"""Task arithmetic: the base plus lambda times the sum of all updates, one lambda for all.

lambda is the value of the grid with the best mean accuracy on validation rows of the experts' own tasks. Of LoRAs the
sum is never multiplied out; differences of full fine-tunes (`kind=delta`) are added to all parameters, once.
Source: Ilharco et al. 2022 (2212.04089), section 2.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from moejax.adapted import Adapted
from moejax.contract import Fitted, Grants, Method, chosen_kind, plain_arrays
from moejax.experts.bank import Bank
from moejax.experts.merge import Mode
from moejax.experts.merge_deltas import patched, task_vector
from moejax.experts.pool import Pool
from moejax.models.base import Base
from moejax.places import LINEARS, Lora, Uniform
from moejax.taxonomy import Card, Paper, infobox
from moejax.train.accuracy import accuracy

CARD = Card(
    "task_arithmetic", "Task arithmetic", paper=Paper("Ilharco et al.", 2022, "2212.04089", "ICLR 2023"),
    axes=infobox("Standard", "Private", "Expert", "Task", "Model", "Dense", "Parameter",
                 "In-Distribution | Out-of-Distribution", "Zero-Shot"),
    grants=frozenset({"expert_labels"}), holds=frozenset({"silent", "equivariant"}),
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """The grid of lambda, and how many validation rows of each expert's task it is tuned on; what is summed."""

    grid: tuple[float, ...] = (0.1, 0.2, 0.3, 0.5)
    rows: int = 32
    batch: int = 64
    kind: Literal["lora", "delta"] = "lora"


def adapt(config: Config, base: Base) -> Adapted:
    """Weight lambda on every expert, everywhere; lambda is a knob, so the grid compiles nothing."""
    return Adapted(base.model, ((LINEARS, Lora("output", Uniform("lambda"))),))


def fit(config: Config, base: Base, pool: Pool, grants: Grants, work: Any) -> Fitted:
    """Tune lambda on validation rows; ties go to the smaller."""
    rows = [grants.expert_labels(name).validation for name in pool.names]

    def fitted(value: float) -> Fitted:
        return Fitted({"places": {}, "knobs": {"lambda": jnp.float32(value)}}, pool.names)

    def make() -> dict[str, Any]:
        adapted, grid = adapt(config, base), sorted(config.grid)
        found = []
        for value in grid:
            arrays = METHOD.arrays(config, base, pool, fitted(value))
            each = [accuracy(adapted, arrays, part, config.batch, config.rows) for part in rows]
            found.append(float(np.mean(each)))
        return {"lambda": np.float32(grid[int(np.argmax(found))]), "accuracy": np.array(found, np.float32)}

    found = fitted(float(work.memo("lambda", make)["lambda"]))
    return found._replace(chosen={"lambda": "validation rows of the experts' tasks"})


def merge(config: Config, pool: Pool, fitted: Fitted) -> tuple[Float[np.ndarray, "e"], Mode]:
    """lambda on every expert."""
    return np.asarray(pool.bank.alive, np.float32) * float(fitted.router["knobs"]["lambda"]), "output"


def arrays(config: Config, base: Base, pool: Pool, fitted: Fitted) -> dict[str, Any]:
    """LoRAs as they are; differences merged into the parameters, with nothing left to mix."""
    if "delta" not in pool.kinds:
        return plain_arrays(config, base, pool, fitted)
    vector = task_vector(pool.bank, pool.rest, pool.names, merge(config, pool, fitted)[0], base.layers)
    found = plain_arrays(config, base, replace(pool, bank=Bank({}, jnp.asarray(pool.bank.alive))), fitted)
    return found | {"params": patched(base.params, vector)}


METHOD = Method(CARD, Config, adapt, fit=fit, arrays=arrays, kind=chosen_kind, merge=merge)
