"""Small things made on the spot: bases, rows, experts and pools for tests."""

import zlib
from dataclasses import replace
from functools import cache

import jax.numpy as jnp
import numpy as np

from moejax.contract import Rows
from moejax.experts.bottleneck import Bottleneck
from moejax.experts.delta import Delta
from moejax.experts.expert import Expert
from moejax.experts.lora import Lora
from moejax.experts.pool import Pool, pool_of
from moejax.models.base import Base
from moejax.models.decoder import DecoderConfig
from moejax.models.encoder import EncoderConfig
from moejax.models.seq2seq import Seq2SeqConfig
from moejax.models.weights import random_base
from moejax.train.rows import ArrayRows
from moejax.types import Batch

VOCAB, CHOICES = 64, 4
CONFIGS = {
    "encoder": EncoderConfig(vocab=VOCAB, width=16, layers=2, heads=2, hidden=24, positions=32, remat=False),
    "decoder": DecoderConfig(vocab=VOCAB, width=16, layers=2, heads=4, kv_heads=2, hidden=24, remat=False),
    "seq2seq": Seq2SeqConfig(
        vocab=VOCAB, width=16, encoder_layers=1, decoder_layers=2, heads=4, head_dim=6, hidden=24, buckets=8, most=12,
        remat=False,
    ),
}  # fmt: skip
EVERYWHERE, ON_TOP = "layers/attn/q", "layers/mlp/down"  # adapted in both layers, and in the upper one alone
BESIDE = (
    ("encoder_layers/attn/v", 1),
    ("encoder_layers/mlp/gate", 1),
    ("cross_layers/cross/k", 0),
    ("layers/cross/q", 1),
)
"""What an expert of a seq2seq adapts as well; blocks are counted from the top."""


class Embedder:
    """Vectors of texts drawn by their hash: what a sentence encoder is to a router, without one."""

    name = "by-hash"

    def __call__(self, texts):
        drawn = [np.random.default_rng(zlib.crc32(text.encode())).normal(size=6) for text in texts]
        return np.float32([vector / np.linalg.norm(vector) for vector in drawn]).reshape(-1, 6)


def fresh(kind: str, labels: int = 8) -> Base:
    """A random base; an encoder has label vectors."""
    base = replace(random_base(CONFIGS[kind]), embedder=Embedder())
    if kind != "encoder":
        return base
    vectors = np.random.default_rng(1).normal(size=(labels, base.model.config.width)).astype(np.float32)
    return replace(base, labels=jnp.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)))


base = cache(fresh)


def expert(base: Base, name: str, rank: int = 2, alpha: float = 4.0, everywhere: bool = True) -> Expert:
    """An expert with both factors away from zero; `everywhere` False: it leaves `ON_TOP` alone."""
    rng, loras = np.random.default_rng(sum(map(ord, name))), {}
    sites = ((EVERYWHERE, 0), (EVERYWHERE, 1), (ON_TOP, 1))[: 3 if everywhere else 2]
    for path, layer in sites + (BESIDE if base.kind == "seq2seq" else ()):
        d, f = base.shapes[path]
        a, b = rng.normal(size=(rank, d)) * 0.4, rng.normal(size=(rank, f)) * 0.4
        loras[path, layer] = Lora(a.astype(np.float32), b.astype(np.float32), alpha)
    return Expert(name, {}, loras)


def bottleneck(base: Base, name: str, rank: int = 2, act: str = "relu", everywhere: bool = True) -> Expert:
    """An adapter at the upper layer's join, and unless `everywhere` is False one after the attention of both."""
    rng, made, d = np.random.default_rng(sum(map(ord, name))), {}, base.model.config.width
    for path, layer in (("layers/mlp_join", 1), ("layers/attn", 0), ("layers/attn", 1))[
        : 3 if everywhere else 1
    ]:
        leaves = (rng.normal(size=size) * 0.4 for size in ((rank, d), rank, (rank, d), d))
        made[path, layer] = Bottleneck(*(leaf.astype(np.float32) for leaf in leaves), act, 1.0 + len(act) / 8)
    return Expert(name, {}, {}, made)


def bottlenecks(base: Base, *names: str, capacity: int | None = None) -> Pool:
    """A pool of them; ranks, scales and non-linearities differ, and "cy" leaves a site alone."""
    kinds = {"ann": (2, "relu", True), "bob": (1, "gelu", True), "cy": (2, "tanh", False)}
    experts = [bottleneck(base, name, *kinds.get(name, (2, "relu", True))) for name in names]
    return pool_of(experts, base.sites, base.shapes, base.layers, capacity=capacity, rank=2)


def delta(base: Base, name: str, everywhere: bool = True) -> Expert:
    """A full fine-tune of both layers, norms and biases too, or unless `everywhere` of the upper MLP alone."""
    rng, made = np.random.default_rng(sum(map(ord, name))), {}
    norms = {"encoder": ("layers/attn_join/norm",), "decoder": ("layers/mlp_norm",)}[base.kind]
    shapes = base.shapes | dict.fromkeys(norms, (1, base.model.config.width))
    for path, (d, f) in shapes.items() if everywhere else ((ON_TOP, base.shapes[ON_TOP]),):
        for layer in range(base.layers) if everywhere else (1,):
            w, bias = rng.normal(size=(d, f)) * 0.15, rng.normal(size=f) * 0.15
            bias *= has_bias(base, path)
            made[path, layer] = Delta(w.astype(np.float32), bias.astype(np.float32))
    return Expert(name, {}, {}, deltas=made)


def has_bias(base: Base, path: str) -> bool:
    """Whether the module at a path has a bias."""
    node = base.params
    for name in path.split("/"):
        node = node[name]
    return "bias" in node


def deltas(base: Base, *names: str, capacity: int | None = None) -> Pool:
    """A pool of them; "cy" moves one linear alone."""
    experts = [delta(base, name, name != "cy") for name in names]
    return pool_of(experts, base.sites, base.shapes, base.layers, capacity=capacity)


def pool(base: Base, *names: str, capacity: int | None = None) -> Pool:
    """A pool in memory; ranks and scales differ, and "cy" leaves a site alone."""
    kinds = {"ann": (2, 4.0, True), "bob": (1, 2.0, True), "cy": (2, 3.0, False)}
    experts = [expert(base, name, *kinds.get(name, (2, 4.0, True))) for name in names]
    return pool_of(experts, base.sites, base.shapes, base.layers, capacity=capacity, rank=2)


def rows(base: Base, count: int, seed: int = 0, length: int = 8, width: int = 12) -> ArrayRows:
    """Random rows as the base wants them: 4 to `length` tokens, padded on the right with noise to `width`."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, VOCAB, (count, width)).astype(np.int32)
    mask = np.arange(width)[None] < rng.integers(4, length + 1, count)[:, None]
    words = [" ".join(map(str, line[real])) for line, real in zip(tokens, mask, strict=True)]
    batch = Batch(tokens, mask, mask, query=None if base.embedder is None else base.embedder(words))
    at = np.arange(count)
    if base.kind == "encoder":
        targets = rng.integers(0, CHOICES, count).astype(np.int32)
        choices = np.tile(np.arange(CHOICES, dtype=np.int32), (count, 1))
        return ArrayRows(batch._replace(pool=mask, targets=targets, choices=choices), at, words)
    if base.kind == "seq2seq":
        targets = rng.integers(1, VOCAB, (count, 6)).astype(np.int32)
        answer = np.arange(6)[None] < rng.integers(2, 7, count)[:, None]
        return ArrayRows(batch._replace(targets=targets, answer=answer), at, words)
    prompt = mask & (np.arange(width)[None] < 3)
    following = np.concatenate([tokens[:, 1:], tokens[:, :1]], axis=1)
    answer = np.roll(mask & ~prompt, -1, axis=1)  # positions whose next token is an answer's
    return ArrayRows(batch._replace(prompt=prompt, targets=following, answer=answer), at, words)


def as_batch(some: Rows) -> Batch:
    """All rows as one batch."""
    return some.take(np.arange(len(some)))
