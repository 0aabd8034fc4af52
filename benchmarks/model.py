"""Part 2: whole models, ours: the bare base, one LoRA on it, and pools of experts that Arrow routes at every site."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from benchmarks import limits
from benchmarks.cases import SCALE
from benchmarks.machine import Rates
from benchmarks.measure import Call, Effort, Entry, measure
from moejax.adapted import Adapted, run, start, step
from moejax.evaluate.grants import Grants
from moejax.experts.bank import Bank
from moejax.experts.pool import Pool
from moejax.experts.stacks import Stack
from moejax.methods import arrow
from moejax.models.base import Base
from moejax.models.decoder import DecoderConfig
from moejax.models.encoder import EncoderConfig
from moejax.models.weights import random_base
from moejax.places import LINEARS, Lora, evenly
from moejax.types import Batch, PyTree

SIX = tuple(f"layers/{site}" for site in "attn/q attn/k attn/v attn/o mlp/up mlp/down".split())
SEVEN = (*SIX, "layers/mlp/gate")
ENCODER = EncoderConfig(
    vocab=1000, width=384, layers=6, heads=12, hidden=1536, positions=64, remat=False
)  # MiniLM's
DECODER = DecoderConfig(vocab=4000, width=512, layers=6, heads=8, kv_heads=8, hidden=1408, remat=False)


@dataclass(frozen=True)
class Setting:
    """A base, which linears are adapted, the rank, and the texts: rows and their tokens; decoded: new tokens."""

    config: EncoderConfig | DecoderConfig = ENCODER
    sites: tuple[str, ...] = SIX
    r: int = 8
    rows: int = 64
    tokens: int = 16
    decoded: int = 0
    pools: tuple[int, ...] = (8, 32, 128)
    k: int = 2

    def __str__(self) -> str:
        kind = "encoder" if isinstance(self.config, EncoderConfig) else "decoder"
        does = f"{self.decoded} tokens one by one" if self.decoded else "forward"
        c = self.config
        return f"{kind} d={c.width} layers={c.layers} r={self.r}, {self.rows}×{self.tokens} tokens, {does}"


SETTINGS = (
    Setting(),
    Setting(DECODER, SEVEN, 16, 4, 64),
    Setting(DECODER, SEVEN, 16, 1, 64, decoded=16),
    Setting(DECODER, SEVEN, 16, 8, 64, decoded=16),
)


EFFORT = Effort(seconds=5.0, least=8)


class Subject(NamedTuple):
    """A model as it is called; experts: how many are routed (0: the bare base, 1: one LoRA)."""

    experts: int
    adapted: Adapted
    arrays: PyTree


def bank_of(base: Base, sites: Sequence[str], e: int, r: int, seed: int = 0) -> Bank:
    """Random experts that adapt these linears in all layers."""
    rng, stacks = np.random.default_rng(seed), {}
    for path in sites:
        d, f = base.shapes[path]
        lead = (base.layers, e)
        a = rng.standard_normal((*lead, r, d), np.float32) / d**0.5
        b = rng.standard_normal((*lead, r, f), np.float32) / (10 * r)
        leaves = (a, b, np.full(lead, SCALE), np.ones(lead, bool), np.arange(base.layers))
        types = (jnp.float32, jnp.float32, jnp.float32, jnp.bool_, jnp.int32)
        stacks[path] = Stack(*(jnp.asarray(leaf, dtype) for leaf, dtype in zip(leaves, types, strict=True)))
    return Bank(stacks, jnp.ones(e, bool))


def subject(base: Base, setting: Setting, e: int) -> Subject:
    """The bare base (e = 0), one LoRA, or Arrow over e experts."""
    arrays: PyTree = {"params": base.params, "bank": Bank({}, jnp.ones(1, bool)), "router": {}}
    if not e:
        return Subject(0, Adapted(base.model), arrays)
    bank = bank_of(base, setting.sites, e, setting.r)
    if e == 1:
        one = Adapted(base.model, ((LINEARS, Lora("output")),), route=evenly)
        return Subject(1, one, arrays | {"bank": bank})
    pool = Pool(tuple(f"e{i}" for i in range(e)), ({},) * e, bank, base.sites, (None,) * e)
    config = arrow.Config(k=setting.k)
    fitted = arrow.fit(config, base, pool, Grants(frozenset(), {}), None)
    return Subject(e, arrow.adapt(config, base), arrow.arrays(config, base, pool, fitted))


@partial(jax.jit, static_argnames="adapted")
def states(arrays: PyTree, batch: Batch, *, adapted: Adapted) -> Float[Array, "b t d"]:
    """An encoder's forward."""
    return run(adapted, arrays, batch).hidden


@partial(jax.jit, static_argnames=("adapted", "room"))
def prefill(arrays: PyTree, batch: Batch, *, adapted: Adapted, room: int) -> tuple[Float[Array, "b v"], Any]:
    """A decoder's first pass over the prompts."""
    return start(adapted, arrays, batch, room)


@partial(jax.jit, static_argnames=("adapted", "steps"))
def write(arrays: PyTree, begun: Any, *, adapted: Adapted, steps: int) -> Int[Array, "n b"]:
    """The likeliest tokens, one by one in one program."""

    def one(carried, _):
        token, state = carried
        logits, state = step(adapted, arrays, token, state)
        token = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        return (token, state), token

    logits, state = begun
    first = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    return jax.lax.scan(one, (first, state), length=steps)[1]


def texts(setting: Setting) -> Int[np.ndarray, "b t"]:
    """Random tokens."""
    rng = np.random.default_rng(0)
    return rng.integers(1, setting.config.vocab, (setting.rows, setting.tokens)).astype(np.int32)


def call(base: Base, setting: Setting, e: int) -> Call:
    """A call of the model as the setting says."""
    some, tokens = subject(base, setting, e), jnp.asarray(texts(setting))
    batch = Batch(tokens, jnp.ones_like(tokens, bool), jnp.ones_like(tokens, bool))
    if isinstance(setting.config, EncoderConfig):
        return lambda: jax.block_until_ready(states(some.arrays, batch, adapted=some.adapted))
    room = max(setting.decoded, 1)
    first = partial(prefill, some.arrays, batch, adapted=some.adapted, room=room)
    if not setting.decoded:
        return lambda: jax.block_until_ready(first())
    begun = jax.block_until_ready(first())
    return lambda: jax.block_until_ready(
        write(some.arrays, begun, adapted=some.adapted, steps=setting.decoded)
    )


def entries(base: Base, setting: Setting) -> list[Entry]:
    """The bare base, one LoRA, and the pools."""
    bare, steps = "bare, jax", setting.decoded or 1
    make = partial(call, base, setting)
    found = [Entry(bare, partial(make, 0), bare, "bare", steps=steps)]
    return found + [Entry(named(e), partial(make, e), bare, steps=steps) for e in (1, *setting.pools)]


def named(e: int) -> str:
    """How a model stands in a table."""
    return "ours, one LoRA" if e == 1 else f"ours, {e} experts"


def limit(base: Base, setting: Setting, e: int) -> float:
    """The ratio to the bare model that operations alone give; where tokens are written one by one, bytes alone."""
    config, layers = setting.config, base.layers
    sites = [base.shapes[path] for path in setting.sites] * layers
    seen = setting.tokens + setting.decoded
    other = 0.0 if setting.decoded else 2.0 * layers * seen * config.width  # attention over the tokens
    if isinstance(config, DecoderConfig):
        other += config.vocab * config.width / (1 if setting.decoded else setting.tokens)
    k = min(setting.k, e)
    return limits.model(sites, other, setting.rows, e, k, setting.r, bool(setting.decoded))


def part(
    rates: Rates, effort: Effort = EFFORT, peers: bool = True, settings: Sequence[Setting] = SETTINGS
) -> Iterator[dict[str, Any]]:
    """All settings; limits: of each entry by its name."""
    bases: dict[Any, Base] = {}
    for setting in settings:
        base = bases.setdefault(setting.config, random_base(setting.config, scale=1.0))
        some = entries(base, setting)
        if peers:
            from benchmarks import peers_model

            some += peers_model.entries(base, setting)
        found: Mapping[str, float] = {named(e): limit(base, setting, e) for e in (1, *setting.pools)}
        yield {"title": str(setting), "limits": found, "rows": measure(some, effort)}
