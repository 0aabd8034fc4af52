"""Arrow: each token goes to the experts whose own update amplifies it most; needs nothing but the weights.

p_e is the top right singular vector of B_e A_e; w = softmax over the k largest |x . p_e| / temperature.
Per token and per linear, recomputed at every token; cached decoding is exact.
Source: Ostapenko et al. 2024 (2405.11157), section 4.
"""

from dataclasses import dataclass
from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from moejax.adapted import Adapted
from moejax.contract import Fitted, Grants, Method, plain_arrays
from moejax.experts.bank import factored
from moejax.experts.pool import Pool
from moejax.joint import Site
from moejax.models.base import Base
from moejax.places import LINEARS, Lora
from moejax.routing import select
from moejax.routing.prototypes import directions
from moejax.survey import CARDS
from moejax.types import Weights


@dataclass(frozen=True)
class Config:
    """k chosen experts (4 in the paper's zero-shot run), temperature (1), and how they are mixed.

    `output` is the default: well defined for experts of any rank and scale, and independent of their factor
    basis. `factor` is the paper's own and its code's default; it has cross terms between experts.
    """

    aggregation: Literal["output", "factor"] = "output"
    k: int = 4
    temperature: float = 1.0


@dataclass(frozen=True)
class Score:
    """top-k of |x . p_e| / temperature, softmax over the chosen."""

    k: int

    def __call__(self, site: Site, x: Float[Array, "b t d"]) -> Weights:
        """Step weights [b, t, k]; an expert whose update is zero at this site has no direction and no weight."""
        prototypes = site.leaves["prototype"]
        present = site.present & jnp.any(prototypes != 0, axis=-1)
        found = jnp.abs(site.dots(x, "prototype"))  # as `scores.absolute_projection`
        return select.top_k(found, present, self.k, site.knobs["temperature"])


def adapt(config: Config, base: Base) -> Adapted:
    """Every linear scores its own input."""
    return Adapted(base.model, ((LINEARS, Lora(config.aggregation, Score(config.k))),))


def fit(config: Config, base: Base, pool: Pool, grants: Grants, work: Any) -> Fitted:
    """Nothing is learned; the temperature is a knob."""
    return Fitted({"places": {}, "knobs": {"temperature": jnp.float32(config.temperature)}}, pool.names)


def arrays(config: Config, base: Base, pool: Pool, fitted: Fitted) -> dict[str, Any]:
    """Prototypes from the factors by QR and an r x r SVD: exact, never saved, once for all rows of a pool."""
    places = {
        path: {"prototype": directions(stack.a, stack.b)} for path, stack in factored(pool.bank).items()
    }
    plain = plain_arrays(config, base, pool, fitted)
    return plain | {"router": {"places": places, "knobs": fitted.router["knobs"]}}


METHOD = Method(CARDS["arrow"], Config, adapt, fit=fit, arrays=arrays)
