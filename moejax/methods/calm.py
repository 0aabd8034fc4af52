"""CALM: an anchor attends, after some of its blocks, over hidden states of an augmenting model on the same tokens.

Both are frozen. For each connection from layer i of m_A to layer l of m_B, with H_A and H_B after the whole block,
P = H_A W_P, Q = H_B W_Q, K = P W_K, V = P W_V, and H_B + concat_heads(softmax(Q K^T / sqrt(D_B / N_H)) V) W_O goes on
to block l + 1. Only these five are trained (no biases), on labelled rows of the target, which show the combined skill.

m_A is `Base.beside`, a model of any shape. Without one, the base under each expert of the pool is an augmenting model
with connections of its own, and their terms are summed (the paper leaves open what to do with several).

mask       `causal`: no token sees m_A at padding, and none of a decoder sees it later than itself. `released`: no mask
           at all, as the released code computes: next tokens leak in training, and no cache can serve it.
layers     `every`: every fourth of m_A, evenly spread ones of m_B; `linspace`: the first, the last and between, as
           released; of the layers whose parameters are given. `reads` and `writes` name them instead, in pairs.
post_norm  an RMSNorm, scale 1 + w, over each term before it is added, as released.
W_O starts at zero: a fresh CALM is the anchor (not with `post_norm`, where W_O starts as the others).
Every token runs through both models; kept from prefill are the caches of both and the connections' keys and values.
Source: Bansal et al. 2024 (2401.02412), section 3; google-deepmind/calm for what is named as released.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from moejax.adapted import Adapted, depth
from moejax.composed import LAYERS, Added, Composed, read
from moejax.contract import Fitted, Grants, Method, count, one_stack, plain_arrays
from moejax.experts.bank import size
from moejax.experts.pool import Pool
from moejax.models.base import Base
from moejax.places import LINEARS, Lora
from moejax.survey import CARDS
from moejax.train.optimiser import Optimiser
from moejax.train.rows import drawn, seed_of
from moejax.types import PyTree, UserError


@dataclass(frozen=True)
class Config:
    """Number of connections (None: one for four layers of m_A), heads (None: the anchor's), modes, and training."""

    connections: int | None = None
    layers: Literal["every", "linspace"] = "every"
    reads: tuple[int, ...] = ()
    writes: tuple[int, ...] = ()
    heads: int | None = None
    mask: Literal["causal", "released"] = "causal"
    post_norm: bool = False
    steps: int = 400
    batch: int = 16
    rate: float = 1e-3
    decay: float = 0.0


def connected(config: Config, first: range, second: range) -> tuple[list[int], list[int]]:
    """The layers that are read in m_A, and those of m_B after which they are added, of those that there are.

    Raises UserError for more connections than either has layers, and for layers named in `reads` and `writes` that
    do not match, or are not there.
    """
    reads, writes = list(config.reads), list(config.writes)
    if reads or writes:
        there = set(reads) <= set(first) and set(writes) <= set(second)
        if len(reads) != len(writes) or len(set(writes)) < len(writes) or not there:
            raise UserError(
                f"calm: reads={config.reads}, writes={config.writes}: name as many layers of {first[0]} to "
                f"{first[-1]} as of {second[0]} to {second[-1]}, none of the latter twice"
            )
        return reads, writes
    n = max(1, len(first) // 4) if config.connections is None else config.connections
    if n > min(len(first), len(second)):
        most = min(len(first), len(second))
        raise UserError(
            f"calm: {n} connections, but one of the models has {most} layers: give at most {most}"
        )
    if config.layers == "linspace":
        reads, writes = (np.linspace(0, len(some) - 1, n).astype(int) for some in (first, second))
        return [first[i] for i in reads], [second[i] for i in writes]
    stride = min(4, len(first)) if config.connections is None else len(first) // max(n, 1)
    return [first[stride * (j + 1) - 1] for j in range(n)], [
        second[len(second) * (j + 1) // n - 1] for j in range(n)
    ]


def adapt(config: Config, base: Base) -> Adapted:
    """Two passes, the second with a place after every block. Raises UserError for models that do not go together."""
    one_stack(base, "calm")
    first, model = base.beside or base, base.model
    if first is not base:
        check(first, base)
    width, heads = model.config.width, config.heads or model.config.heads  # pyright: ignore[reportAttributeAccessIssue]
    if width % heads:
        raise UserError(f"calm: heads is {heads}, which does not divide the base's width {width}")
    if config.connections == 0:
        return Adapted(model)
    experts = () if base.beside else ((LINEARS, Lora("output", sow=False)),)
    reading = Adapted(first.model, (("layers", read), *experts))
    beside = base.beside is not None
    passes = Composed(reading, heads, beside, unmasked=config.mask == "released")
    return Adapted(model, (("layers", Added(beside)),), passes=passes)


def check(first: Base, second: Base) -> None:
    """Raise UserError unless both models are of one kind and read the same token ids."""
    one_stack(first, "calm")
    if first.kind != second.kind:
        kinds = {"encoder": "an encoder", "decoder": "a decoder"}
        raise UserError(
            f"calm: the base is {kinds[second.kind]}, the model beside it {kinds[first.kind]}: give one of its kind"
        )
    if not first.reads_as(second):
        raise UserError(
            "calm: the model beside the base has another tokenizer: both must read the same token ids"
        )


def fresh(config: Config, base: Base, names: Sequence[str], room: int, seed: int) -> PyTree:
    """The connections before training, each augmenting model's drawn from its name; free slots are zero.

    W_P ~ N(0, 1 / D_A), W_Q, W_K, W_V ~ N(0, 0.02^2), W_O = 0 (with post_norm as the others).
    """
    first, second = base.beside or base, base
    da, d = (one.model.config.width for one in (first, second))  # pyright: ignore[reportAttributeAccessIssue]
    reads, writes = connected(
        config, *(range(one.layers - depth(one.params), one.layers) for one in (first, second))
    )
    scales = {"project": da**-0.5, "q": 0.02, "k": 0.02, "v": 0.02, "o": 0.02 if config.post_norm else 0.0}
    leaves: dict[str, np.ndarray] = {}
    for leaf, scale in scales.items():
        leaves[leaf] = np.zeros((len(reads), room, da if leaf == "project" else d, d), np.float32)
        for i, name in enumerate(names):
            rng = np.random.default_rng(seed_of(f"{name}:{leaf}", seed))
            leaves[leaf][:, i] = scale * rng.normal(size=leaves[leaf][:, i].shape)
    if config.post_norm:
        leaves["norm"] = np.zeros((len(reads), room, d), np.float32)
    slot = np.full(second.layers, -1, np.int32)
    slot[np.array(writes, int)] = np.arange(len(writes))
    return jax.tree.map(jnp.asarray, leaves | {"read": np.array(reads, np.int32), "slot": slot})


def fit(config: Config, base: Base, pool: Pool, grants: Grants, work: Any) -> Fitted:
    """Train the connections on the target's labelled rows; both models stay as they are."""
    rows, adapted = grants.target_labels().train, adapt(config, base)
    names, room = (pool.names, size(pool.bank)) if base.beside is None else (("beside",), 1)
    model = fresh(config, base, names, room, work.seed)
    start = {"model": model, "places": {}, "knobs": {}}
    free = {name: leaf for name, leaf in model.items() if name not in LAYERS}
    if config.connections == 0:
        return Fitted(start, pool.names)
    trained = work.train(
        "connections", adapted, METHOD.arrays(config, base, pool, Fitted(start, pool.names)),
        {"router": {"model": free}}, drawn(rows, config.batch, work.seed),
        Optimiser(config.rate, config.steps, decay=config.decay),
    )["router"]["model"]  # fmt: skip
    return Fitted(start | {"model": model | trained}, pool.names, trained=count(free) // room * len(names))


def arrays(config: Config, base: Base, pool: Pool, fitted: Fitted) -> dict[str, Any]:
    """The plain ones, and the parameters of the model beside the base."""
    plain = plain_arrays(config, base, pool, fitted)
    return plain if base.beside is None else plain | {"beside": base.beside.params}


METHOD = Method(CARDS["calm"], Config, adapt, fit=fit, arrays=arrays)
