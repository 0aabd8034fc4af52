"""Granularity: one score, at three grains, under three selections and two ways of mixing. Our own study.

s_e = LN(x) . LN(m_e) / sqrt(d) at every linear, m_e the mean input that the expert saw there (`average_activation`).
grain  `step`: one s a token; `example`: its mean over the request's tokens, held from prefill; `task`: its mean
       over a target's unlabelled training rows, measured with the example's router in place.
choose `dense`: softmax over all; `topk`: over the k largest; `top1`.
mix    `output` or `factor`.
The survey (2408.07057, section 4) leaves open what each of these axes changes by itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from moejax.adapted import Adapted, run
from moejax.contract import Extras, Fitted, Grants, Method, Rows
from moejax.experts.pool import Pool
from moejax.fetch import fetch
from moejax.joint import Site
from moejax.methods import average_activation
from moejax.models.base import Base
from moejax.places import LINEARS, Lora
from moejax.routing import scores, select
from moejax.site import at_slots, sown
from moejax.taxonomy import Card, infobox
from moejax.train.rows import batches
from moejax.types import Batch, PyTree, Weights

CARD = Card(
    "granularity", "Granularity study (ours)",
    axes=infobox("Custom", "Private", "None", "Step", "Module", "Dense", "Output", "Out-of-Distribution",
                 "Zero-Shot"),
    grants=frozenset({"own"}), extras=frozenset({"activation"}),
    holds=frozenset({"simplex", "single", "silent", "equivariant"}),
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Grain, selection and mixing as above; k; how many of its rows a contributor averages over."""

    grain: Literal["task", "example", "step"] = "step"
    choose: Literal["dense", "topk", "top1"] = "dense"
    mix: Literal["output", "factor"] = "output"
    k: int = 2
    rows: int = 256
    batch: int = 32


@dataclass(frozen=True)
class Score:
    """The score at one grain, and the weights that a selection makes of it."""

    grain: str
    choose: str
    k: int

    def __call__(self, site: Site, x: Float[Array, "b t d"]) -> Weights:
        """Task [e], example [b, e] or step weights [b, t, e], dense or as k chosen."""
        found, present = self.scores(site, x), site.present
        if self.choose == "dense":
            return select.softmax(found, present)
        return select.top_k(found, present, self.k if self.choose == "topk" else 1)

    def scores(self, site: Site, x: Float[Array, "b t d"]) -> Float[Array, "*n e"]:
        """s, over what the grain averages over; sows the means over requests [b, e]."""
        if self.grain == "task":
            return site.leaves["score"]
        each = partial(scores.standardised_dot, x, site.leaves["gate"])
        if self.grain == "step":
            return each()
        asked = site.batch.prompt[..., None]
        pooled = site.once("scores", lambda: jnp.sum(each() * asked, 1) / jnp.maximum(jnp.sum(asked, 1), 1))
        site.sow("scores", pooled)
        return pooled


def needs(config: Config) -> frozenset[str]:
    """The grain of a task is measured on unlabelled rows of that task."""
    return CARD.grants | ({"target_inputs"} if config.grain == "task" else frozenset())


def adapt(config: Config, base: Base) -> Adapted:
    """Every linear scores its own input."""
    place = Lora(config.mix, Score(config.grain, config.choose, config.k))
    return Adapted(base.model, ((LINEARS, place),))


def contribute(
    config: Config, base: Base, pool: Pool, rows: Mapping[str, Rows], work: Any
) -> dict[str, Extras]:
    """Mean inputs of every site, as for `average_activation`."""
    return average_activation.contribute(
        average_activation.Config(rows=config.rows, batch=config.batch), base, pool, rows, work
    )


def fit(config: Config, base: Base, pool: Pool, grants: Grants, work: Any) -> Fitted:
    """Stack the means; at the grain of a task, average the scores over its rows."""
    means = pool.stacked_extra("activation")
    start = Fitted({"places": {p: {"gate": mean} for p, mean in means.items()}, "knobs": {}}, pool.names)
    if config.grain != "task":
        return start
    example = adapt(replace(config, grain="example"), base)
    given, rows = METHOD.arrays(config, base, pool, start), grants.target_inputs().train
    total = {path: jnp.zeros(mean.shape[:2]) for path, mean in means.items()}
    for batch, _ in batches(rows, min(config.batch, len(rows))):
        total = _add(total, given, batch, adapted=example)
    places = {path: {"score": jnp.asarray(sums / len(rows))} for path, sums in fetch(total).items()}
    return Fitted({"places": places, "knobs": {}}, pool.names)


@partial(jax.jit, static_argnames="adapted", donate_argnames="total")
def _add(
    total: dict[str, Float[Array, "s e"]], arrays: PyTree, batch: Batch, *, adapted: Adapted
) -> dict[str, Float[Array, "s e"]]:
    """The sums of scores by path, with those of the real rows of one more batch."""
    assert batch.weight is not None
    found = sown(run(adapted, arrays, batch, record=True).records, "scores")
    sums = {path: jnp.einsum("lbe,b->le", rows, batch.weight) for path, rows in found.items()}
    return {path: total[path] + at_slots(leaf, arrays["bank"].sites[path]) for path, leaf in sums.items()}


METHOD = Method(
    CARD, Config, adapt, fit=fit, contribute=contribute, contributed=("rows", "batch"), grants=needs
)
