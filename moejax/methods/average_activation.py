"""Average activation: an expert's prototype at a linear is the mean input that it sees there on its own data.

The prototypes are standardised and routed as PHATGOOSE's gates are: top-2 of LN(x) . LN(m_e) / sqrt(d).
Source: the baseline of Muqeeth et al. 2024 (2402.05859) as released; the mean is over prompt tokens, not padding.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from moejax.adapted import Adapted, run
from moejax.contract import Extras, Fitted, Grants, Method, Rows
from moejax.experts.bank import Bank, factored, size
from moejax.experts.pool import Pool
from moejax.fetch import fetch
from moejax.joint import Next, Site
from moejax.methods import phatgoose
from moejax.models.base import Base
from moejax.places import LINEARS, Lora, own_expert
from moejax.site import at_slots, sown
from moejax.taxonomy import Card, infobox
from moejax.train.rows import bound

CARD = Card(
    "average_activation", "Average activation",
    axes=infobox("Custom", "Private", "None", "Step", "Module", "Sparse", "Output", "Out-of-Distribution",
                 "Zero-Shot"),
    grants=frozenset({"own"}), extras=frozenset({"activation"}), open=True, holds=phatgoose.METHOD.card.holds,
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """k chosen experts, and how many of its rows a contributor averages over."""

    k: int = 2
    rows: int = 256
    batch: int = 32


@dataclass(frozen=True)
class Measured:
    """The row's own expert at a linear, and the sums of the inputs it saw."""

    lora: Lora = Lora("output")

    def __call__(self, site: Site, next: Next, x: Float[Array, "b t d"]) -> Float[Array, "b t f"]:
        """The adapted linear; sows the sum of x over prompt tokens [b, d]."""
        if site.stack is not None:
            seen = site.batch.prompt[..., None].astype(jnp.float32)
            site.sow("sum", jnp.sum(x.astype(jnp.float32) * seen, axis=1))
        return self.lora(site, next, x)


def adapt(config: Config, base: Base) -> Adapted:
    """Every linear scores its own input."""
    return phatgoose.adapt(phatgoose.Config(k=config.k), base)


def contribute(
    config: Config, base: Base, pool: Pool, rows: Mapping[str, Rows], work: Any
) -> dict[str, Extras]:
    """Mean inputs of every site with the contributor's own expert in place."""
    adapted = Adapted(base.model, ((LINEARS, Measured()),), route=own_expert)
    arrays = {"params": base.params, "bank": pool.bank, "router": {}}
    stream = bound(rows, pool.names, config.batch, work.seed)
    total = _nothing(pool.bank)
    for step in range(max(1, config.rows // config.batch)):
        total = _add(total, arrays, stream(step), adapted=adapted)
    sums, tokens = fetch(total)
    return {
        name: {"activation": {path: leaf[:, e] / tokens[e] for path, leaf in sums.items()}}
        for e, name in enumerate(pool.names)
    }


def _nothing(bank: Bank) -> Any:
    """Sums of inputs by path [s, e, d], and numbers of prompt tokens [e], of no batch."""
    sums = {p: jnp.zeros(s.a.shape[:2] + s.a.shape[3:]) for p, s in factored(bank).items()}
    return sums, jnp.zeros(size(bank))


@partial(jax.jit, static_argnames="adapted", donate_argnames="total")
def _add(total: Any, arrays: Any, batch: Any, *, adapted: Adapted) -> Any:
    """The sums and numbers with those of one more batch."""
    records = run(adapted, arrays, batch, record=True).records
    by_expert = partial(jax.ops.segment_sum, segment_ids=batch.expert, num_segments=size(arrays["bank"]))
    sums, inputs = {}, sown(records, "sum")
    for path, stack in arrays["bank"].sites.items():
        sums[path] = jax.vmap(by_expert)(at_slots(inputs[path], stack))
    tokens = by_expert(jnp.sum(batch.prompt, axis=1).astype(jnp.float32))
    return jax.tree.map(jnp.add, total, (sums, tokens))


def fit(config: Config, base: Base, pool: Pool, grants: Grants, work: Any) -> Fitted:
    """Stack the means that the contributors handed over; nothing is learned."""
    means = pool.stacked_extra("activation")
    return Fitted({"places": {p: {"gate": mean} for p, mean in means.items()}, "knobs": {}}, pool.names)


METHOD = Method(
    CARD,
    Config,
    adapt,
    fit=fit,
    contribute=contribute,
    arrays=phatgoose.arrays,
    contributed=("rows", "batch"),
)
