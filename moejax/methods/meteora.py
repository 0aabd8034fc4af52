"""MeteoRA: a bias-free gate in front of every adapted linear picks the top-k experts per token.

Use: z = x G^T; w = softmax over the top-k of z / T; y = W x + sum_{i in K} w_i s_i B_i A_i x.
Training, on the experts' pooled data: task loss + 50 * cross-entropy(softmax(z), the row's own expert), over all
experts and without T, averaged over the real tokens and all gates; the logits are summed where they are made and
never kept. With k = 1 every w is 1, and the second term alone trains the gates.
The paper freezes the experts (the default); the released script trains them too, a tenth of their inputs dropped
(`train_loras`; here one draw for all experts of a site). The task loss here is that of the answer; the release scores
the prompt's tokens as well.
Source: Xu et al. 2024 (2405.13053), and its released code for the loss, its weight 50 and the clipping at 0.3.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from moejax.adapted import Adapted
from moejax.contract import Fitted, Grants, Method, count_alive
from moejax.experts.bank import Bank, factored
from moejax.experts.pool import Pool
from moejax.joint import Next, Site
from moejax.models.base import Base
from moejax.places import LINEARS, Lora
from moejax.routing import select
from moejax.site import sown
from moejax.survey import CARDS
from moejax.train.experts import trainable, with_factors
from moejax.train.optimiser import Optimiser
from moejax.train.rows import pooled, seed_of
from moejax.train.step import mean
from moejax.types import Batch, PyTree, Weights


@dataclass(frozen=True)
class Config:
    """k chosen experts, temperature T of their weights (a knob), weight of the task identity, and training.

    dropout: share of the experts' inputs that is dropped while they are trained, with `train_loras`. warmup: share of
    the steps in which the rate rises.

    The release trains 28 experts of a 13B base for 15,000 steps of 32 rows at 5e-4, warmup 0.005.
    """

    k: int = 2
    temperature: float = 1.0
    identity: float = 50.0
    train_loras: bool = False
    dropout: float = 0.1
    steps: int = 200
    batch: int = 32
    rate: float = 5e-3
    warmup: float = 0.05


def logits(site: Site, x: Float[Array, "b t d"]) -> Float[Array, "b t e"]:
    """z = x G^T, in float32."""
    return site.dots(x, "gate")


@dataclass(frozen=True)
class Score:
    """Top-k of z, then softmax of z / T over the chosen."""

    k: int

    def __call__(self, site: Site, x: Float[Array, "b t d"]) -> Weights:
        """Step weights [b, t, k]."""
        return select.top_k(logits(site, x), site.present, self.k, site.knobs["temperature"])


@dataclass(frozen=True)
class Identified:
    """Training: the place as in use, and the cross-entropy of its gate summed over the real tokens."""

    place: Lora

    def __call__(self, site: Site, next: Next, x: Float[Array, "b t d"]) -> Float[Array, "b t f"]:
        """What the place gives; sows (sum of cross-entropies [], number of tokens [])."""
        if site.stack is not None:
            site.sow("identity", cross_entropy(logits(site, x), site))
        return self.place(site, next, x)


def cross_entropy(z: Float[Array, "b t e"], site: Site) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum over real tokens of -log softmax(z)[own expert], and their number; none where that expert is absent."""
    batch, present = site.batch, site.present
    logp = jax.nn.log_softmax(jnp.where(present[None, None], z, select.FAR), axis=-1)
    own = jnp.take_along_axis(logp, batch.expert[:, None, None], axis=-1)[..., 0]
    real = batch.mask & present[batch.expert][:, None]
    if batch.weight is not None:
        real &= batch.weight[:, None] > 0
    return -jnp.sum(own, where=real), jnp.sum(real).astype(jnp.float32)


@dataclass(frozen=True)
class Loss:
    """Task loss + identity * mean cross-entropy of all gates."""

    identity: float

    def __call__(self, rows: Float[Array, "b"], records: PyTree, batch: Batch) -> Float[Array, ""]:
        """From the rows' losses and what the gates sowed."""
        found = sown(records, "identity")
        total, tokens = (sum(jnp.sum(pair[i]) for pair in found.values()) for i in (0, 1))
        return mean(rows, records, batch) + self.identity * total / jnp.maximum(tokens, 1.0)


def adapt(config: Config, base: Base) -> Adapted:
    """Every linear scores its own input."""
    return Adapted(base.model, ((LINEARS, Lora("output", Score(config.k))),))


def gates(bank: Bank, names: Sequence[str], seed: int) -> PyTree:
    """Gates as a new linear has them, uniform in +-1 / sqrt(d), each drawn from its expert's name.

    Not zeros: every top-k would be a tie then, and the order of the pool would decide the first steps.
    """
    made = {}
    for path, stack in factored(bank).items():
        s, e, _, d = stack.a.shape
        gate = np.zeros((s, e, d), np.float32)
        for i, name in enumerate(names):
            rng = np.random.default_rng(seed_of(f"{name}:{path}", seed))
            gate[:, i] = rng.uniform(-1, 1, (s, d)) / np.sqrt(d)
        made[path] = {"gate": jnp.asarray(gate)}
    return made


def fit(config: Config, base: Base, pool: Pool, grants: Grants, work: Any) -> Fitted:
    """Train all gates together on the experts' own training rows (and the experts, with `train_loras`)."""
    rows = {name: grants.expert_labels(name).train for name in pool.names}
    places = gates(pool.bank, pool.names, work.seed)
    start = {"places": places, "knobs": {"temperature": jnp.float32(config.temperature)}}
    arrays = METHOD.arrays(config, base, pool, Fitted(start, pool.names))
    free = {"router": {"places": places}} | (trainable(pool.bank) if config.train_loras else {})
    place = Lora("output", Score(config.k), dropout=config.dropout if config.train_loras else 0.0)
    trained = work.train(
        "gates", Adapted(base.model, ((LINEARS, Identified(place)),)), arrays, free,
        pooled(rows, pool.names, config.batch, work.seed),
        Optimiser(config.rate, config.steps, config.warmup, clip=0.3),
        objective=Loss(config.identity), record=True, random=config.train_loras,
    )  # fmt: skip
    bank = with_factors(pool.bank, trained) if config.train_loras else None
    return Fitted(start | trained["router"], pool.names, bank, trained=count_alive(free, pool.bank))


METHOD = Method(CARDS["meteora"], Config, adapt, fit=fit)
