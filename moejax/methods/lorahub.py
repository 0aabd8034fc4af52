"""LoraHub: a few experts drawn at random become one LoRA, by weights found without a gradient on five labelled rows.

A* = sum_i w_i A_i, B* = sum_i w_i s_i B_i, Delta W = B* A*: one weight an expert for all linears, free reals in
[-1.5, 1.5] that need not sum to one; w = 0 is the base. `factor` is this merge, as published; `output` mixes the
products, sum_i w_i s_i B_i A_i. Each expert has its own scale s_i (the release takes the first expert's for all), and
smaller ranks are filled with zeros (the release refuses them).
Minimised: CE / n + 0.05 mean_i |w_i| over the n rows, as released (`scaling="released"`), or CE + 0.05 sum_i |w_i|, as
published (`scaling="paper"`); CE is the mean over answers (decoder: over their tokens).
search  `cobyla`: what nevergrad's NGOpt, which the release calls, resolves to for this problem (radius 1 in w / 0.5);
        `cma`: CMA-ES, which the paper names; `random`: as many uniform draws, a control.
Decided once a target; nothing is left to do at inference but a merged LoRA's work.
Source: Huang et al. 2023 (2307.13269), section 3, and its released code.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from moejax.adapted import Adapted
from moejax.contract import Fitted, Grants, Method
from moejax.experts.bank import size
from moejax.experts.merge import Mode
from moejax.experts.pool import Pool
from moejax.fetch import fetch
from moejax.loss import row_loss
from moejax.models.base import Base
from moejax.paged import for_batch, paged
from moejax.places import LINEARS, Lora
from moejax.survey import CARDS
from moejax.train.rows import seed_of
from moejax.train.search import Search, minimise
from moejax.types import Batch, PyTree, Weights


@dataclass(frozen=True)
class Config:
    """How experts are merged, weights searched and scored; k experts drawn, budget of trials, bound of a weight.

    shots: how many of the target's labelled rows the search reads, the first of those that are granted.
    """

    merge: Mode = "factor"
    search: Search = "cobyla"
    scaling: Literal["released", "paper"] = "released"
    k: int = 20
    budget: int = 40
    bound: float = 1.5
    penalty: float = 0.05
    shots: int = 5


def weights(arrays: PyTree, batch: Batch) -> Weights:
    """Task weights [k] of the experts that were drawn."""
    drawn = arrays["router"]["model"]
    return Weights(drawn["weights"], drawn["experts"])


def adapt(config: Config, base: Base) -> Adapted:
    """The same weights at every linear; they are an array, so that all evaluations share one program."""
    return Adapted(base.model, ((LINEARS, Lora(config.merge)),), route=weights)


def draw(pool: Pool, count: int, seed: int) -> list[int]:
    """Slots of `count` experts drawn by the seed (all where there are fewer), in the order of their content hashes.

    The search tries weights in this order and depends on it; neither names nor the pool's order do.
    """
    slots = sorted(range(len(pool.names)), key=lambda slot: pool.infos[slot]["hash"])
    chosen = np.random.default_rng(seed).permutation(len(slots))[:count]
    return [slots[number] for number in np.sort(chosen)]


def penalised(loss: float, rows: int, w: Float[np.ndarray, "k"], config: Config) -> float:
    """What is minimised, of the mean cross-entropy of n rows."""
    size = np.abs(w)
    if config.scaling == "paper":
        return loss + config.penalty * float(size.sum())
    return loss / rows + config.penalty * float(size.mean())


def fit(config: Config, base: Base, pool: Pool, grants: Grants, work: Any) -> Fitted:
    """Draw experts, then search their weights on the target's few labelled rows."""
    rows = grants.target_labels().train
    index = np.arange(min(config.shots, len(rows)))
    experts = draw(pool, config.k, seed_of("lorahub", work.seed))

    def fitted(w: Float[np.ndarray, "k"]) -> Fitted:
        model = {"weights": jnp.asarray(w, jnp.float32), "experts": jnp.asarray(experts, jnp.int32)}
        return Fitted({"model": model, "places": {}, "knobs": {}}, pool.names, trained=len(experts))

    def make() -> dict[str, Any]:
        batch = jax.tree.map(jnp.asarray, rows.take(index))

        def score(w: Float[np.ndarray, "k"]) -> float:
            arrays = METHOD.arrays(config, base, pool, fitted(w))
            adapted, arrays = paged(adapt(config, base), arrays, pool)
            loss = cross_entropy(for_batch(arrays, batch), batch, adapted=adapted)
            return penalised(float(fetch(loss)), len(index), w, config)

        found = minimise(config.search, score, len(experts), config.bound, config.budget, work.seed)
        return {"weights": found.best, "tried": found.values}

    found = fitted(work.memo("weights", make)["weights"])
    return found._replace(chosen={"weights": f"{len(index)} labelled target rows"})


@partial(jax.jit, static_argnames="adapted")
def cross_entropy(arrays: PyTree, batch: Batch, *, adapted: Adapted) -> Float[Array, ""]:
    """Mean over the rows' answers; over all their tokens, where answers have several."""
    loss, _ = row_loss(adapted, arrays, batch)
    tokens = jnp.ones_like(loss) if batch.answer is None else jnp.sum(batch.answer, axis=1)
    return jnp.sum(loss * tokens) / jnp.sum(tokens)


def merge(config: Config, pool: Pool, fitted: Fitted) -> tuple[Float[np.ndarray, "e"], Mode]:
    """The weights that were found, over the whole pool."""
    model = fetch(fitted.router["model"])
    weights = np.zeros(size(pool.bank), np.float32)
    weights[model["experts"]] = model["weights"]
    return weights, config.merge


METHOD = Method(CARDS["lorahub"], Config, adapt, fit=fit, merge=merge, few=True)
