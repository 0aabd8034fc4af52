"""PHATGOOSE: every contributor trains one sigmoid gate per linear after its expert; the gates become the router.

Gate phase (experts and base frozen): y = W x + s B A (sigmoid(v . x) x), v from 0, only v is trained.
Use: w = top-2 of softmax(LN(x) . LN(v_e) / sqrt(d)), renormalised. The sigmoid is not used then.
Per token and per linear, recomputed at every token; cached decoding is exact.
In the gate phase only what enters the lowest adapted layer is frozen, and rows carry it (`train.features`): a gate
scales what its expert adds, so what enters any linear above moves from step to step, and is not kept.
Source: Muqeeth et al. 2024 (2402.05859), section 3, and the released code for the 1e-6 of the renormalisation.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from moejax.adapted import Adapted
from moejax.contract import Extras, Fitted, Grants, Method, Rows, count_alive, plain_arrays
from moejax.experts.bank import factored
from moejax.experts.pool import Pool
from moejax.joint import Next, Site
from moejax.models.base import Base
from moejax.places import LINEARS, Lora, own_expert
from moejax.routing import scores, select
from moejax.survey import CARDS
from moejax.train.optimiser import Optimiser
from moejax.train.rows import bound
from moejax.types import Weights


@dataclass(frozen=True)
class Config:
    """k chosen experts, and the contributors' gate phase: steps, rows a step, rate.

    The paper's 100 steps at 5e-3 are for batches of 1024 on a 3B base.
    """

    k: int = 2
    steps: int = 100
    batch: int = 32
    rate: float = 5e-3
    warmup: float = 0.06


@dataclass(frozen=True)
class Score:
    """Standardised gates against the standardised input: softmax, top-k, renormalise."""

    k: int

    def __call__(self, site: Site, x: Float[Array, "b t d"]) -> Weights:
        """Step weights [b, t, k] of LN(x) . LN(v_e) / sqrt(d), whose LN(v_e) the arrays hold."""
        found = site.dots(x, "gate", scores.standardise) / math.sqrt(x.shape[-1])
        return select.softmax_top_k(found, site.present, self.k)


@dataclass(frozen=True)
class OwnGate:
    """Gate phase: the row's own expert, on an input scaled by its sigmoid gate."""

    lora: Lora = Lora("output")

    def __call__(self, site: Site, next: Next, x: Float[Array, "b t d"]) -> Float[Array, "b t f"]:
        """y = W x + s B A (sigmoid(v . x) x), one gate a token."""
        if site.stack is None:
            return next(x)
        v = site.leaves["gate"][site.batch.expert]
        gate = jax.nn.sigmoid(jnp.einsum("btd,bd->bt", x.astype(jnp.float32), v))
        y = next(x)
        return y + self.lora(site, lambda x: jnp.zeros_like(y), x * gate[..., None].astype(x.dtype))


def adapt(config: Config, base: Base) -> Adapted:
    """Every linear scores its own input."""
    return Adapted(base.model, ((LINEARS, Lora("output", Score(config.k))),))


def contribute(
    config: Config, base: Base, pool: Pool, rows: Mapping[str, Rows], work: Any
) -> dict[str, Extras]:
    """Train the gates of all experts in one program, each on its own rows: the same as apart."""
    adapted = Adapted(base.model, ((LINEARS, OwnGate()),), route=own_expert)
    gates = {p: {"gate": jnp.zeros(s.a.shape[:2] + s.a.shape[3:])} for p, s in factored(pool.bank).items()}
    arrays = plain_arrays(config, base, pool, Fitted({"places": gates, "knobs": {}}, pool.names))
    trained = work.train(
        "gates", adapted, arrays, {"router": {"places": gates}},
        bound(rows, pool.names, config.batch, work.seed),
        Optimiser(config.rate, config.steps, config.warmup, "constant"), together=pool.names,
    )["router"]["places"]  # fmt: skip
    return {
        name: {"gate": {path: np.asarray(leaves["gate"][:, e]) for path, leaves in trained.items()}}
        for e, name in enumerate(pool.names)
    }


def fit(config: Config, base: Base, pool: Pool, grants: Grants, work: Any) -> Fitted:
    """Stack the gates that the contributors handed over; nothing is learned."""
    gates = pool.stacked_extra("gate")
    places = {path: {"gate": gate} for path, gate in gates.items()}
    return Fitted({"places": places, "knobs": {}}, pool.names, trained=count_alive(places, pool.bank))


def arrays(config: Any, base: Base, pool: Pool, fitted: Fitted) -> dict[str, Any]:
    """The gates standardised once, not at every token."""
    places = {
        path: {"gate": scores.standardise(jnp.asarray(leaves["gate"]))}
        for path, leaves in fitted.router["places"].items()
    }
    return plain_arrays(config, base, pool, fitted._replace(router=fitted.router | {"places": places}))


METHOD = Method(
    CARDS["phatgoose"], Config, adapt, fit=fit, contribute=contribute, arrays=arrays,
    contributed=("steps", "batch", "rate", "warmup"),
)  # fmt: skip
