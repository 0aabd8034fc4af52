"""MoLE: a whole block under each expert is an expert; a gate fed with all their outputs mixes them.

E_i(x) = the block's output with expert i in all its linears; Om = normalised concatenation of the E_i;
G = softmax(Om e / tau), e [xi, e] and tau learned on the target's labelled rows; O(x) = sum_i G_i E_i(x).
Loss: task loss + 0.5 * L_bal, L_bal = -sum_i log q_i, q_i the mean of G_i over all gates and rows.

level   `block` (as published), `layer` (attention and MLP apart), `matrix` (each linear's update)
mode    `pooled`: the outputs' mean over the request's tokens, one G a request, decided at prefill (the default:
        it serves texts of any length); `token`: one G a token; `paper`: all tokens flattened, one G a request, for
        texts of one length. The equations are `paper`; the survey lists Step, which is `token`.
residual `once`: as above, so that one expert with G = 1 is that expert; `literal`: equation 13, O = F + sum_i G_i E_i
        with F the bare block, which adds the residual stream twice.
The normalisation is not defined in the text: `layernorm` (no affine) or `l2`, over all that is concatenated.
Source: Wu, Huang, Wei 2024 (2404.13628), equations 5 to 15; its repository holds no code.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from moejax.adapted import Adapted
from moejax.contract import Fitted, Grants, Method, one_stack
from moejax.experts.bank import Bank, factored, size
from moejax.experts.pool import Pool
from moejax.joint import Next, Site
from moejax.models.base import Base
from moejax.places import LINEARS, Lora
from moejax.routing import select
from moejax.site import sown
from moejax.survey import CARDS
from moejax.train.experts import adapted_sites
from moejax.train.optimiser import Optimiser
from moejax.train.rows import drawn
from moejax.train.step import mean
from moejax.types import Batch, PyTree, UserError, Weights

RATE = {"pooled": 1e-3, "token": 1e-3, "paper": 1e-5}  # the paper's 1e-5 is for its much longer concatenation
MODULES = {"block": ("layers",), "layer": ("layers/attn", "layers/mlp")}


@dataclass(frozen=True)
class Config:
    """Level, mode, residual and normalisation as above; weight of the balance, and training (rate None: the mode's)."""

    level: Literal["block", "layer", "matrix"] = "block"
    mode: Literal["pooled", "token", "paper"] = "pooled"
    residual: Literal["once", "literal"] = "once"
    norm: Literal["layernorm", "l2"] = "layernorm"
    balance: float = 0.5
    steps: int = 800
    batch: int = 12
    rate: float | None = None


class Share(NamedTuple):
    """What a gate gave away in a batch: sums of G over rows [e], their number, and which experts could get some."""

    total: Float[Array, "*l e"]
    rows: Float[Array, "*l"]
    alive: Bool[Array, "*l e"]


@dataclass(frozen=True)
class Gate:
    """G from the experts' outputs at one place."""

    mode: str
    norm: str

    def __call__(self, site: Site, y: Float[Array, "b e t n"]) -> Float[Array, "b *t e"]:
        """One weight vector a request [b, e], held from prefill; with `token` one a token [b, t, e]."""
        if self.mode == "token":
            given = self.weigh(site, jnp.swapaxes(y, 1, 2))
            seen = site.batch.mask[..., None]
            self.share(site, jnp.sum(given * seen, axis=1) / jnp.maximum(jnp.sum(seen, axis=1), 1))
            return given
        given = site.once("gate", lambda: self.weigh(site, self.flat(site, y)))
        self.share(site, given)
        return given

    def flat(self, site: Site, y: Float[Array, "b e t n"]) -> Float[Array, "b e xi"]:
        """The request's tokens as one vector an expert: their mean, or one after another with padding at zero."""
        asked = site.batch.prompt[:, None, :, None]
        if self.mode == "pooled":
            return jnp.sum(y * asked, axis=2) / jnp.maximum(jnp.sum(asked, axis=2), 1)
        width, long = site.leaves["gate"].shape[1], y.shape[2] * y.shape[3]
        if width != long:
            raise UserError(
                f"mole(mode='paper') was fitted on texts of {width // y.shape[3]} tokens, here are {y.shape[2]}: "
                "pad them to that length, or use mode='pooled'"
            )
        return (y * asked).reshape(*y.shape[:2], long)

    def weigh(self, site: Site, y: Float[Array, "*b e xi"]) -> Float[Array, "*b e"]:
        """softmax(Om e / tau) over the experts that are present; the others count for nothing in Om."""
        leaves, present = site.leaves, site.present
        logits = jnp.einsum("...ex,exj->...j", normalise(y, present, self.norm), leaves["gate"])
        return select.softmax(logits / jnp.exp(leaves["log_tau"]), present).values

    def share(self, site: Site, given: Float[Array, "b e"]) -> None:
        """Sow the share of every expert, of the real rows; nothing where no expert adapts this layer."""
        weight, gated = site.batch.weight, adapts(site)
        weight = jnp.ones(len(given)) if weight is None else weight
        site.sow("share", Share(weight @ given * gated, jnp.sum(weight) * gated, site.present & gated))


def normalise(y: Float[Array, "*b e xi"], present: Bool[Array, "e"], norm: str) -> Float[Array, "*b e xi"]:
    """Over the concatenation of the experts that are present: layer normalisation, or length one."""
    y = jnp.where(present[..., None], y.astype(jnp.float32), 0.0)
    numbers = jnp.maximum(jnp.sum(present) * y.shape[-1], 1)
    if norm == "layernorm":
        centre = jnp.sum(y, axis=(-2, -1), keepdims=True) / numbers
        y = jnp.where(present[..., None], y - centre, 0.0)
        return y / jnp.sqrt(jnp.sum(jnp.square(y), axis=(-2, -1), keepdims=True) / numbers + 1e-5)
    return y / jnp.sqrt(jnp.maximum(jnp.sum(jnp.square(y), axis=(-2, -1), keepdims=True), 1e-12))


def adapts(site: Site) -> Bool[Array, ""]:
    """Whether any expert may adapt a linear within this module, at this layer."""
    within = [s for p, s in site.bank.sites.items() if f"{p}/".startswith(f"{site.path}/")]
    return jnp.any(jnp.stack([s.slot[0 if site.layer is None else site.layer] >= 0 for s in within]))


@dataclass(frozen=True)
class Mixed:
    """A block, an attention or an MLP: run under every expert on copies of the rows, mixed by G."""

    gate: Gate
    literal: bool

    def __call__(self, site: Site, next: Next, *args: Any) -> Float[Array, "b t d"]:
        """sum_i G_i E_i; the bare module where no expert is alive."""
        b, e, bare = len(args[0]), size(site.bank), int(self.literal)
        worn = select.one_hot(jnp.tile(jnp.arange(-bare, e), b))
        y = next(*args, outer=worn, copies=e + bare)
        y = y.reshape(b, e + bare, *y.shape[1:])
        if site.path not in site.router["places"]:  # no expert adapts it in any layer
            return y[:, 0]
        given = self.gate(site, y[:, bare:])
        site.sow("weights", Weights(given))
        given = given[:, None] if given.ndim == 2 else given
        mixed = jnp.einsum("bte,betd->btd", jnp.broadcast_to(given, (b, y.shape[2], e)), y[:, bare:])
        return mixed + y[:, 0] * (1.0 if self.literal else 1.0 - jnp.sum(given, axis=-1)[..., None])


@dataclass(frozen=True)
class Updates:
    """A linear's score: G from the experts' updates s_i (B_i A_i x + bias_i)."""

    gate: Gate

    def __call__(self, site: Site, x: Float[Array, "b t d"]) -> Weights:
        """Example weights [b, e], or step weights [b, t, e]."""
        assert site.stack is not None
        slot, bias = jnp.maximum(site.slot, 0), site.stack.bias
        a, b, scale = (leaf[slot] for leaf in site.stack[:3])
        given = jnp.einsum("btd,erd,erf,e->betf", x, a, b, scale)
        if bias is not None:
            given = given + (scale[:, None] * bias[slot])[None, :, None]
        return Weights(self.gate(site, given))


def adapt(config: Config, base: Base) -> Adapted:
    """Places by level. Raises UserError for `literal` at level `matrix`, where there is no residual stream."""
    gate, literal = Gate(config.mode, config.norm), config.residual == "literal"
    if config.level == "matrix":
        if literal:
            raise UserError(
                "mole: residual='literal' is for level='block' or 'layer': a linear adds no residual"
            )
        return Adapted(base.model, ((LINEARS, Lora("output", Updates(gate))),))
    one_stack(base, f"mole(level={config.level})")
    mixed = tuple((path, Mixed(gate, literal)) for path in MODULES[config.level])
    return Adapted(base.model, (*mixed, (LINEARS, Lora("output", sow=False))), copies=int(literal), each=1)


def widths(config: Config, base: Base, bank: Bank) -> dict[str, tuple[int, int, int]]:
    """Gates by path: (how many are kept, how many of them are used, numbers that an expert puts out a token)."""
    if config.level == "matrix":
        return {path: (len(s.a), len(s.a), s.b.shape[-1]) for path, s in factored(bank).items()}
    sites, found = adapted_sites(bank), {}
    for path in MODULES[config.level]:
        used = {layer for one, layer in sites if one.startswith(f"{path}/")}
        if used:
            found[path] = (base.layers, len(used), base.model.config.width)
    return found


def fit(config: Config, base: Base, pool: Pool, grants: Grants, work: Any) -> Fitted:
    """Train the gates on the target's labelled rows, from the uniform mean (e = 0, tau = 1)."""
    rows, e, some = grants.target_labels().train, size(pool.bank), len(pool.names)
    tokens = rows.take(np.zeros(1, int)).tokens.shape[1] if config.mode == "paper" else 1
    places, trained = {}, 0
    for path, (kept, used, width) in widths(config, base, pool.bank).items():
        gate = jnp.zeros((kept, e, tokens * width, e))
        places[path] = {"gate": gate, "log_tau": jnp.zeros(kept)}
        trained += used * (some * tokens * width * some + 1)  # without free slots
    start = {"places": places, "knobs": {}}
    found = work.train(
        "gates", adapt(config, base), METHOD.arrays(config, base, pool, Fitted(start, pool.names)),
        {"router": {"places": places}}, drawn(rows, config.batch, work.seed),
        Optimiser(RATE[config.mode] if config.rate is None else config.rate, config.steps),
        objective=Loss(config.balance), record=True,
    )  # fmt: skip
    return Fitted(start | found["router"], pool.names, trained=trained)


@dataclass(frozen=True)
class Loss:
    """Task loss + balance * L_bal."""

    balance: float

    def __call__(self, rows: Float[Array, "b"], records: PyTree, batch: Batch) -> Float[Array, ""]:
        """From the rows' losses and the shares that the gates sowed."""
        return mean(rows, records, batch) + self.balance * unbalance(list(sown(records, "share").values()))


def unbalance(shares: list[Share]) -> Float[Array, ""]:
    """L_bal = -sum_i log q_i, q_i the mean of G_i over all gates and rows: e log e when all are equal."""

    def over_layers(leaf, of):
        return jnp.sum(leaf.reshape(-1, *leaf.shape[leaf.ndim - of :]), axis=0)

    total = sum(over_layers(one.total, 1) for one in shares)
    gates = sum(over_layers(one.rows, 0) for one in shares)
    alive = sum(over_layers(one.alive.astype(jnp.int32), 1) for one in shares)
    q = jnp.where(alive > 0, total / jnp.maximum(gates, 1.0), 1.0)
    return -jnp.sum(jnp.log(jnp.maximum(q, jnp.finfo(jnp.float32).tiny)))


METHOD = Method(CARDS["mole"], Config, adapt, fit=fit)
