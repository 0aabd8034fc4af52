"""LoraRetriever: a sentence encoder finds the k experts whose sample inputs are most like the request.

M_e = mean_i enc(x_i) over the m inputs that a contributor hands over, not brought to length one again; K = the k
experts with the largest similarity of q = enc(request) and M_e; each has weight 1 / k, at every linear.
mode        `mixture` sums outputs, sum_K 1/k s_e B_e A_e x; `fusion` factors, (sum 1/k s_e B_e)(sum 1/k A_e) x;
            `selection` takes the one best expert.
encoder     `trained`: enc(x) = P v / |P v| on the embedder's vectors v, P [q, q] trained from the identity to tell
            apart inputs of two fifths of the experts' tasks (InfoNCE; the paper tunes all of a 1.5B encoder);
            `shelf`: enc(x) = v; `centroids`: as `shelf`, but contributors hand over M_e and no input.
similarity  `cosine` as published; `inner` as in the released code, which prefers tight clusters by |M_e| <= 1.
Each expert has its own scale (the release takes the last one's). Decided once a request, from the prompt.
Source: Zhao et al. 2024 (2402.09997), sections 3.2 and 3.3, and its released code.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from moejax.adapted import Adapted
from moejax.contract import Extras, Fitted, Grants, Method, Rows, on_disk
from moejax.experts.bank import size
from moejax.experts.pool import Pool
from moejax.fetch import fetch
from moejax.models.base import Base
from moejax.places import LINEARS, Lora
from moejax.routing import scores, select
from moejax.survey import CARDS
from moejax.taxonomy import infobox
from moejax.train.rows import seed_of
from moejax.types import Batch, NotApplicable, PyTree, Weights


@dataclass(frozen=True)
class Config:
    """As above; k, m samples an expert; share of tasks, steps, rate and InfoNCE temperature of the encoder's training.

    exclude_own: keep each request from the expert of its own task, the paper's out-of-distribution protocol.
    """

    mode: Literal["mixture", "fusion", "selection"] = "mixture"
    encoder: Literal["trained", "shelf", "centroids"] = "trained"
    similarity: Literal["cosine", "inner"] = "cosine"
    k: int = 3
    samples: int = 20
    exclude_own: bool = False
    share: float = 0.4
    steps: int = 200
    rate: float = 1e-3
    temperature: float = 0.05


@dataclass(frozen=True)
class Retrieve:
    """A route: the k experts that are most like each request."""

    similarity: str
    k: int
    exclude_own: bool

    def __call__(self, arrays: PyTree, batch: Batch) -> Weights:
        """Example weights [b, k], 1 / k each."""
        model = arrays["router"]["model"]
        found = similarity(encoded(model, batch.query), model["mean"], self.similarity)
        if self.exclude_own:
            found = jnp.where(jax.nn.one_hot(batch.expert, found.shape[1]) > 0, select.FAR, found)
        chosen = select.top_k(found, arrays["bank"].alive, self.k)
        used = (chosen.values > 0).astype(jnp.float32)
        return Weights(used / jnp.maximum(jnp.sum(used, axis=-1, keepdims=True), 1.0), chosen.index)


def encoded(model: PyTree, v: Float[Array, "*n q"]) -> Float[Array, "*n q"]:
    """enc of the embedder's vectors: P v / |P v|, or v where nothing was trained."""
    return scores.unit(v @ model["project"].T) if "project" in model else v


def similarity(q: Float[Array, "b q"], means: Float[Array, "e q"], kind: str) -> Float[Array, "b e"]:
    """cos(q, M_e), or q . M_e."""
    return q @ (scores.unit(means) if kind == "cosine" else means).T


def needs(config: Config) -> frozenset[str]:
    """What contributors hand over; training inputs for the encoder; the task of each row to keep it from its own."""
    trained = {"expert_inputs"} if config.encoder == "trained" else set()
    return frozenset({"own"} | trained | ({"test_task"} if config.exclude_own else set()))


def handed(config: Config) -> frozenset[str]:
    """Sample inputs, or their mean vector alone."""
    return frozenset({"mean" if config.encoder == "centroids" else "samples"})


def adapt(config: Config, base: Base) -> Adapted:
    """One decision a request, for all linears."""
    mode = "factor" if config.mode == "fusion" else "output"
    k = 1 if config.mode == "selection" else config.k
    return Adapted(
        base.model, ((LINEARS, Lora(mode)),), route=Retrieve(config.similarity, k, config.exclude_own)
    )


def contribute(
    config: Config, base: Base, pool: Pool, rows: Mapping[str, Rows], work: Any
) -> dict[str, Extras]:
    """m of a contributor's own training inputs, and their mean vector; a user reads one of the two."""
    found: dict[str, Extras] = {}
    for name in pool.names:
        rng = np.random.default_rng(seed_of(f"samples:{name}", work.seed))
        index = np.sort(rng.permutation(len(rows[name]))[: config.samples])
        texts = rows[name].texts(index)
        mean = _embed(base, texts).mean(axis=0)
        found[name] = {"samples": [{"input": text} for text in texts], on_disk("mean", base): mean}
    return found


def fit(config: Config, base: Base, pool: Pool, grants: Grants, work: Any) -> Fitted:
    """Train the encoder where that is asked for, and average the samples' vectors."""
    model: PyTree = {}
    if config.encoder == "trained":
        model = {
            "project": jnp.asarray(
                work.memo("project", partial(_train, config, pool, grants, work))["project"]
            )
        }
    before = Fitted({"model": model, "places": {}, "knobs": {}}, pool.names)
    return extend(config, base, pool, before)


def extend(config: Config, base: Base, pool: Pool, before: Fitted) -> Fitted:
    """The router of this pool with the encoder of another: only means are made anew."""
    model = {name: before.router["model"][name] for name in ("project",) if name in before.router["model"]}
    if config.encoder == "centroids":
        means = [np.asarray(mean) for mean in pool.extra(on_disk("mean", base))]
    else:
        texts = [[row["input"] for row in rows] for rows in pool.extra("samples")]
        vectors = fetch([encoded(model, jnp.asarray(_embed(base, some))) for some in texts])
        means = [some.mean(axis=0) for some in vectors]
    whole = np.zeros((size(pool.bank), len(means[0])), np.float32)
    whole[: len(means)] = means
    router = before.router | {"model": model | {"mean": jnp.asarray(whole)}}
    trained = model["project"].size if model else 0
    return Fitted(router, pool.names, trained=trained)


def _embed(base: Base, texts: list[str]) -> Float[np.ndarray, "n q"]:
    if base.embedder is None:
        raise NotApplicable("no encoder of sentence vectors is at hand: say --embedder minilm")
    return base.embedder(texts)


def _train(config: Config, pool: Pool, grants: Grants, work: Any) -> dict[str, Any]:
    """P by InfoNCE: of each task of a batch two inputs, which are to find each other among all tasks' second ones."""
    by_hash = sorted(pool.names, key=lambda name: pool.infos[pool.index(name)]["hash"])
    count = min(max(2, round(config.share * len(by_hash))), len(by_hash))
    rng = np.random.default_rng(seed_of("contrast", work.seed))
    tasks = [by_hash[i] for i in np.sort(rng.permutation(len(by_hash))[:count])]
    rows = [grants.expert_inputs(name).train for name in tasks]
    every = [np.asarray(some.take(np.arange(len(some))).query, np.float32) for some in rows]
    pairs = [[rng.choice(len(v), 2, replace=False) for v in every] for _ in range(config.steps)]
    batches = np.stack([[v[pair] for v, pair in zip(every, some, strict=True)] for some in pairs])
    project = _descend(jnp.asarray(batches), config.rate, config.temperature)
    return {"project": project}


@jax.jit
def _descend(
    batches: Float[Array, "steps tasks 2 q"],
    rate: Float[Array, ""] | float,
    temperature: Float[Array, ""] | float,
) -> Float[Array, "q q"]:
    """Adam over the batches, from the identity."""
    adam = optax.adam(rate)
    start = jnp.eye(batches.shape[-1])

    def step(state, pairs):
        project, moments = state
        gradient = jax.grad(contrast)(project, pairs, temperature)
        change, moments = adam.update(gradient, moments)
        return (project + change, moments), None

    return jax.lax.scan(step, (start, adam.init(start)), batches)[0][0]


def contrast(
    project: Float[Array, "q q"], pairs: Float[Array, "tasks 2 q"], temperature: float | Float[Array, ""]
) -> Float[Array, ""]:
    """InfoNCE: -mean_i log softmax_j(enc(a_i) . enc(b_j) / temperature)_i, over tasks i, j."""
    one, two = (encoded({"project": project}, pairs[:, side]) for side in (0, 1))
    return -jnp.mean(jnp.diagonal(jax.nn.log_softmax(one @ two.T / temperature, axis=-1)))


METHOD = Method(
    CARDS["loraretriever"], Config, adapt, fit=fit, contribute=contribute, contributed=("samples",), grants=needs,
    handed=handed, extend=extend, query=True, few=True,
    modes={"centroids": infobox("Custom Private None Example Model Sparse Output/Parameter ID/OOD Zero-Shot")},
)  # fmt: skip
