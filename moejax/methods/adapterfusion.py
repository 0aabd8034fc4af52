"""AdapterFusion: at each place an attention over the experts' outputs, learned on the target, weighs every token.

q = W_Q h + b_Q, k_n = W_K u_n + b_K, a = softmax_n(dropout(q . k_n) / T), f = sum_n a_n W_V u_n is added to what the
place gives without experts. One head, no 1 / sqrt(d); the dropout, in training alone, is on the scores (as released).
Loss: task loss + 0.01 * sum ||W_V - I||_F^2. Nothing is decayed. All is computed anew for each token, nothing is held.

form `bottleneck` (as published): u_n = B_n act(A_n h + a_n) + b_n, an adapter's output without its residual.
       At a join h = next(x, y) of the residual x and the sub-layer's output y, and next(x, y + f) is the result: in a
       post-norm base the same norm is applied twice, in a pre-norm one there is none. Experts that stand after a
       sub-layer (Houlsby) are fused there: h = y, and y + f is the result.
     `lora` (ours, on the common pool): u_n = s_n B_n A_n x and h = y0 = W0 x of an adapted linear, y0 + f its result.
at   of `lora`. `down`: where the MLP gives its output, which is the paper's place; what the experts do to other
     linears is not used. `all`: at every linear that an expert adapts, each with matrices of its own.
values `learned`; `static`: no W_V, for a target of few labels.
The head stays the base's own: label vectors or the frozen LM head (the paper trains a fresh one for each target).
k_n and W_V u_n are never formed: q . k_n = (W_K^T q) . u_n + q . b_K, and f = W_V sum_n a_n u_n.
Source: Pfeiffer et al. 2021 (2005.00247); adapter-hub/adapters for biases, dropout, initial values and regulariser.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from moejax.adapted import Adapted
from moejax.contract import Fitted, Grants, Method, count, one_stack
from moejax.experts.bank import Bank, factored, size
from moejax.experts.bottleneck import activate
from moejax.experts.pool import Pool
from moejax.experts.stacks import kind_of
from moejax.joint import Next, Site
from moejax.models.base import Base
from moejax.places import LINEARS, bottlenecks, dropped
from moejax.routing import select
from moejax.site import sown
from moejax.survey import CARDS
from moejax.train.optimiser import Optimiser
from moejax.train.rows import drawn, seed_of
from moejax.train.step import mean
from moejax.types import Batch, NotApplicable, PyTree

DOWN = "layers/mlp/down"


@dataclass(frozen=True)
class Config:
    """Form and values as above; temperature T (a knob), weight of the pull of W_V to I, and training.

    The paper trains for 10 epochs at 5e-5 on whole training sets.
    """

    form: Literal["bottleneck", "lora"] = "bottleneck"
    at: Literal["down", "all"] = "down"
    values: Literal["learned", "static"] = "learned"
    temperature: float = 1.0
    pull: float = 0.01
    dropout: float = 0.1
    steps: int = 100
    batch: int = 16
    rate: float = 1e-3


class Outputs(NamedTuple):
    """What the experts of a place give, u_n = z_n U_n + c_n, before it is spelled out.

    bias: None, not zeros, where there is none (jax 0.10.2 on a CPU compiles the gradient of a constant zero wrongly).
    """

    z: Float[Array, "b t e r"]
    up: Float[Array, "e r d"]
    bias: Float[Array, "e d"] | None = None


def of_loras(x: Float[Array, "b t d"], site: Site) -> Outputs:
    """u_n = s_n (B_n A_n x + bias_n), in float32."""
    assert site.stack is not None
    slot, bias = jnp.maximum(site.slot, 0), site.stack.bias
    a, b, scale = (leaf[slot] for leaf in site.stack[:3])
    z = jnp.einsum("btd,erd,e->bter", x.astype(jnp.float32), a, scale)
    return Outputs(z, b, None if bias is None else bias[slot] * scale[:, None])


def of_bottlenecks(h: Float[Array, "b t d"], site: Site) -> Outputs:
    """u_n = s_n (B_n act(A_n h + a_n) + b_n), in float32."""
    assert site.bottlenecks is not None
    a, a_bias, b, b_bias, act, scale = (leaf[jnp.maximum(site.slot, 0)] for leaf in site.bottlenecks[:6])
    z = jnp.einsum("btd,erd->bter", h.astype(jnp.float32), a) + a_bias[None, None]
    z = activate(z, jnp.broadcast_to(act, z.shape[:-1]))
    return Outputs(z * scale[:, None][None, None], b, b_bias * scale[:, None])


def scores(h: Float[Array, "b t d"], u: Outputs, leaves: PyTree) -> Float[Array, "b t e"]:
    """q . k_n for q = W_Q h + b_Q and k_n = W_K u_n + b_K."""
    q = h.astype(jnp.float32) @ leaves["q"] + leaves["q_bias"][None, None]
    back = q @ leaves["k"].T
    raw = jnp.einsum("btd,erd,bter->bte", back, u.up, u.z) + (q @ leaves["k_bias"])[..., None]
    return raw if u.bias is None else raw + back @ u.bias.T


def mixed(u: Outputs, weights: Float[Array, "b t e"], leaves: PyTree) -> Float[Array, "b t d"]:
    """sum_n a_n W_V u_n, W_V = I where there is none."""
    total = jnp.einsum("bter,bte,erd->btd", u.z, weights, u.up)
    total = total if u.bias is None else total + weights @ u.bias
    return total @ leaves["v"] if "v" in leaves else total


@dataclass(frozen=True)
class Attention:
    """What the experts add to a place, by the attention of h over their outputs; sows weights and ||W_V - I||^2."""

    dropout: float

    def __call__(self, site: Site, h: Float[Array, "b t d"], u: Outputs) -> Float[Array, "b t d"]:
        """f, zero where no expert is present."""
        leaves = site.leaves
        raw = thinned(scores(h, u, leaves), self.dropout, site)
        weights = select.softmax(raw / site.knobs["temperature"], site.present)
        site.sow("weights", weights)
        site.sow("pull", jnp.where(site.slot >= 0, away(leaves), 0.0))
        return mixed(u, weights.values, leaves)


def thinned(raw: Float[Array, "b t e"], share: float, site: Site) -> Float[Array, "b t e"]:
    """The scores, in training with dropout, whose draws follow experts, not slots."""
    if site.key is None:
        return raw
    keys = jax.vmap(jax.random.fold_in, (None, 0))(site.key, site.router["model"]["draws"])
    return jax.vmap(dropped, (2, None, 0), 2)(raw, share, keys)


def away(leaves: PyTree) -> Float[Array, ""]:
    """||W_V - I||_F^2."""
    if "v" not in leaves:
        return jnp.zeros(())
    return jnp.sum(jnp.square(leaves["v"] - jnp.eye(len(leaves["v"]))))


@dataclass(frozen=True)
class Fused:
    """A linear: y0 + f, the query being y0."""

    attention: Attention

    def __call__(self, site: Site, next: Next, x: Float[Array, "b t d"]) -> Float[Array, "b t f"]:
        """The adapted linear; the plain one where nobody adapts it in any layer."""
        y = next(x)
        return y if site.stack is None else y + self.attention(site, y, of_loras(x, site)).astype(y.dtype)


@dataclass(frozen=True)
class Beside:
    """What is added where bottleneck adapters stand."""

    attention: Attention

    def __call__(self, site: Site, h: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        """f, h being what the adapters see and the query."""
        return self.attention(site, h, of_bottlenecks(h, site))


def adapt(config: Config, base: Base) -> Adapted:
    """The attention where bottleneck adapters stand, or at the chosen linears."""
    attention = Attention(config.dropout)
    if config.form == "bottleneck":
        return Adapted(base.model, bottlenecks(Beside(attention)))
    if config.at == "all":
        return Adapted(base.model, ((LINEARS, Fused(attention)),))
    one_stack(base, "adapterfusion(lora, at=down)")
    return Adapted(base.model, ((DOWN, Fused(attention)),))


def kind(config: Config) -> str:
    """The kind of experts that are fused."""
    return config.form


def started(config: Config, bank: Bank, seed: int) -> PyTree:
    """W_Q, W_K ~ N(0, 0.02^2), biases 0, W_V = 1 on the diagonal and 1e-6 elsewhere, as released."""
    made, narrow = {}, config.form == "lora" and config.at == "down"
    for path, stack in factored(bank).items():
        if kind_of(stack) != config.form or (narrow and path != DOWN):
            continue
        s, d, rng = len(stack.a), stack.b.shape[-1], np.random.default_rng(seed_of(path, seed))
        leaves = {name: rng.normal(0, 0.02, (s, d, d)) for name in ("q", "k")}
        leaves |= {name: np.zeros((s, d)) for name in ("q_bias", "k_bias")}
        if config.values == "learned":
            leaves["v"] = np.tile(np.where(np.eye(d), 1.0, 1e-6), (s, 1, 1))
        made[path] = {name: jnp.asarray(leaf, jnp.float32) for name, leaf in leaves.items()}
    return made


def draws(pool: Pool, seed: int) -> PyTree:
    """What training's dropout draws for each expert slot, by the expert's name."""
    free = size(pool.bank) - len(pool.names)
    return {"draws": jnp.asarray([seed_of(name, seed) for name in pool.names] + [0] * free, jnp.int32)}


def fit(config: Config, base: Base, pool: Pool, grants: Grants, work: Any) -> Fitted:
    """Train the attention on the target's labelled rows. Raises NotApplicable when no expert is where it looks."""
    rows = grants.target_labels().train
    places = started(config, pool.bank, work.seed)
    if not places:
        where = f"{DOWN}, where adapterfusion(lora) stands: say at=all"
        raise NotApplicable(
            f"no expert adapts {where}" if config.form == "lora" else "no expert is a bottleneck adapter"
        )
    start = {"places": places, "knobs": {"temperature": jnp.float32(config.temperature)}}
    arrays = METHOD.arrays(config, base, pool, Fitted(start | {"model": draws(pool, work.seed)}, pool.names))
    free = {"router": {"places": places}}
    trained = work.train(
        "fusion", adapt(config, base), arrays, free, drawn(rows, config.batch, work.seed),
        Optimiser(config.rate, config.steps), objective=Loss(config.pull), record=True, random=config.dropout > 0,
    )  # fmt: skip
    return Fitted(start | trained["router"], pool.names, trained=count(free))


@dataclass(frozen=True)
class Loss:
    """Task loss + pull * sum ||W_V - I||_F^2."""

    pull: float

    def __call__(self, rows: Float[Array, "b"], records: PyTree, batch: Batch) -> Float[Array, ""]:
        """From the rows' losses and what the places sowed."""
        return mean(rows, records, batch) + self.pull * sum(map(jnp.sum, sown(records, "pull").values()))


METHOD = Method(CARDS["adapterfusion"], Config, adapt, fit=fit, kind=kind)
