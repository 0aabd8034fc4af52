"""WEMoE: every MLP is merged anew for each request, by a router that sees what enters it; all else is merged once.

r(x) = W2 relu(W1 x + b1) + b2 at each token (`depth` 1: W x + b; 0: b); w = mean of r over the request's tokens, free
reals without a softmax. In the MLP theta_0 + sum_e w_e tau_e, elsewhere theta_0 + lambda sum_e tau_e (task arithmetic).
tau_e is an expert's difference to the base, of a full fine-tune all that it changed, biases too (`kind` delta), or
s_e B_e A_e of a LoRA (lora), which is never multiplied out: x W_0 + sum_e w_e s_e (x A_e) B_e. What is merged once is,
of differences, added to the parameters, and only those of MLPs go with the model.
Start: W ~ N(0, 0.01^2) (both codes; the paper's 0.01 is a variance), b1 = 0, b2 = lambda, so that it is near the
task-arithmetic merge. Only the routers learn, without labels: the mean entropy of the predicted distribution over
the task's labels (decoder: over the vocabulary after the request) on the target's training inputs. The paper adapts
to the test inputs themselves and to all targets at once, here it is one target, on rows that are not scored.
reduce  `example`: w of each request, held from prefill; `batch`: one w for the whole batch, as the second released
        code evaluates: a leak of the task's identity where batches are of one task.
Source: Tang et al. 2024 (2402.00433), section 3, and its two released codes.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from moejax.adapted import Adapted
from moejax.contract import Fitted, Grants, Method, chosen_kind, count, count_alive, one_stack, plain_arrays
from moejax.experts.bank import size
from moejax.experts.merge_deltas import patched, task_vector
from moejax.experts.pool import Pool
from moejax.experts.stacks import Deltas
from moejax.joint import Next, Site
from moejax.loss import entropy
from moejax.models.base import Base
from moejax.places import LINEARS, Lora, Uniform
from moejax.survey import CARDS
from moejax.train.experts import adapted_sites
from moejax.train.optimiser import Optimiser
from moejax.train.rows import drawn, seed_of
from moejax.types import NotApplicable, PyTree, Weights

PATH = "layers/mlp"


@dataclass(frozen=True)
class Config:
    """Depth of the routers, lambda, what a weight is of, the kind of experts, and training."""

    depth: Literal[0, 1, 2] = 2
    merge: float = 0.3
    reduce: Literal["example", "batch"] = "example"
    kind: Literal["any", "lora", "delta"] = "any"
    std: float = 0.01
    steps: int = 1000
    batch: int = 16
    rate: float = 1e-4


@dataclass(frozen=True)
class Decide:
    """An MLP: its linears wear the weights that the router gives to what enters it."""

    reduce: str

    def __call__(self, site: Site, next: Next, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        """Weights [b, e], sown; the bare MLP where no expert adapts it."""
        if site.path not in site.router["places"]:
            return next(x)
        w = site.once("weights", lambda: self.weigh(site, x)) * site.bank.alive[None]
        site.sow("weights", Weights(w))
        return next(x, outer=Weights(w))

    def weigh(self, site: Site, x: Float[Array, "b t d"]) -> Float[Array, "b e"]:
        """Mean of r over the tokens of the request; over all real rows of the batch, where it is reduced."""
        asked = site.batch.prompt[..., None].astype(jnp.float32)
        w = jnp.sum(scored(site.leaves, x.astype(jnp.float32)) * asked, axis=1) / jnp.maximum(
            jnp.sum(asked, axis=1), 1
        )
        if self.reduce == "example":
            return w
        real = jnp.ones(len(w)) if site.batch.weight is None else site.batch.weight
        return jnp.broadcast_to(real @ w / jnp.maximum(jnp.sum(real), 1.0), w.shape)


def scored(leaves: PyTree, x: Float[Array, "b t d"]) -> Float[Array, "b t e"]:
    """r(x)."""
    if "w1" in leaves:
        x = jax.nn.relu(x @ leaves["w1"].T + leaves["b1"][None, None])
    out = jnp.broadcast_to(leaves["b2"], (*x.shape[:2], *leaves["b2"].shape))
    return out + x @ leaves["w2"].T if "w2" in leaves else out


def adapt(config: Config, base: Base) -> Adapted:
    """Routers at the MLPs, whose linears wear their weights; lambda everywhere else."""
    one_stack(base, "we_moe")
    worn, merged = Lora("output", sow=False), Lora("output", Uniform("lambda"), sow=False)
    places = ((PATH, Decide(config.reduce)), (f"{PATH}/*", worn), (LINEARS, merged))
    return Adapted(base.model, places)


def routers(config: Config, base: Base, pool: Pool, seed: int) -> PyTree:
    """Fresh routers of all layers; what belongs to an expert is drawn from its content."""
    d: int = base.model.config.width  # pyright: ignore[reportAttributeAccessIssue]
    layers, e, rng = base.layers, size(pool.bank), np.random.default_rng(seed_of("routers", seed))
    leaves: dict[str, Any] = {"b2": np.full((layers, e), config.merge)}
    if config.depth > 0:
        leaves["w2"] = np.zeros((layers, e, d))
        for slot, info in enumerate(pool.infos):
            own = np.random.default_rng(seed_of(info["hash"], seed))
            leaves["w2"][:, slot] = own.normal(scale=config.std, size=(layers, d))
    if config.depth > 1:
        leaves |= {"w1": rng.normal(scale=config.std, size=(layers, d, d)), "b1": np.zeros((layers, d))}
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), leaves)


def fit(config: Config, base: Base, pool: Pool, grants: Grants, work: Any) -> Fitted:
    """Lower the entropy of the predictions on the target's unlabelled rows."""
    rows = grants.target_inputs().train
    used = {layer for path, layer in adapted_sites(pool.bank) if in_mlp(path)}
    if not used:
        raise NotApplicable("no expert adapts an MLP: there is nothing to merge anew for each request")
    places = {PATH: routers(config, base, pool, work.seed)}
    start = {"places": places, "knobs": {"lambda": jnp.float32(config.merge)}}
    found = work.train(
        "routers", adapt(config, base), METHOD.arrays(config, base, pool, Fitted(start, pool.names)),
        {"router": {"places": places}}, drawn(rows, config.batch, work.seed),
        Optimiser(config.rate, config.steps, warmup=0.0, clip=None), losses=entropy,
    )  # fmt: skip
    shared = {name: leaf for name, leaf in places[PATH].items() if name in ("w1", "b1")}
    own = {name: leaf for name, leaf in places[PATH].items() if name not in shared}
    trained = (count(shared) + count_alive(own, pool.bank)) * len(used) // base.layers
    return Fitted(start | found["router"], pool.names, trained=trained)


def arrays(config: Config, base: Base, pool: Pool, fitted: Fitted) -> dict[str, Any]:
    """LoRAs as they are; of differences the MLPs', all others merged into the parameters."""
    if "delta" not in pool.kinds:
        return plain_arrays(config, base, pool, fitted)
    each = np.full(size(pool.bank), float(fitted.router["knobs"]["lambda"]))
    vector = task_vector(pool.bank, pool.rest, pool.names, each, base.layers, lambda path: not in_mlp(path))
    sites = {p: stack for p, stack in pool.bank.sites.items() if in_mlp(p) or not isinstance(stack, Deltas)}
    found = plain_arrays(config, base, replace(pool, bank=pool.bank._replace(sites=sites)), fitted)
    return found | {"params": patched(base.params, vector)}


def in_mlp(path: str) -> bool:
    """Whether a site is a linear of an MLP."""
    return path.startswith(f"{PATH}/")


METHOD = Method(CARDS["we_moe"], Config, adapt, fit=fit, arrays=arrays, kind=chosen_kind)
