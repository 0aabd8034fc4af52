"""A base, experts that leave gaps, gates and batches: what the tests of the joint share."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from reference import Reference

from moejax.adapted import Adapted, head, is_decoder, run
from moejax.experts.bank import Bank, stack
from moejax.experts.expert import Expert
from moejax.experts.lora import Lora
from moejax.models.base import Base
from moejax.models.decoder import DecoderConfig
from moejax.models.encoder import EncoderConfig
from moejax.models.weights import random_base
from moejax.types import Batch

CONFIGS = {
    "decoder": DecoderConfig(vocab=40, width=16, layers=3, heads=4, kv_heads=2, hidden=24),
    "encoder": EncoderConfig(vocab=40, width=16, layers=3, heads=2, hidden=24, positions=32),
}
CLOSE = {"rtol": 0, "atol": 1e-5}
"""A scan against an unrolled loop in float32: states up to 3 after some 80 roundings, and CPUs differ in them."""


QUICK = {"xla_backend_optimization_level": 0}  # most of a tiny test is compiling
jit = partial(jax.jit, compiler_options=QUICK)


@cache
def base_of(config) -> Base:
    """A random base: large enough to show a fault."""
    return random_base(config, 0, 1.0)


def experts(config, paths=("layers/attn/q", "layers/attn/k", "layers/mlp/down")):
    """Four experts of other ranks, scales and sites: nobody adapts k in layer 0, two leave more out."""
    rng, made = np.random.default_rng(5), []
    for i, (rank, alpha, rslora) in enumerate(
        [(2, 4.0, False), (1, 1.5, False), (3, 2.0, True), (2, -2.0, False)]
    ):
        loras = {}
        for path in paths:
            d, f = base_of(config).shapes[path]
            for layer in range(config.layers):
                left_out = (i == 1 and layer == 0) or (i == 2 and "mlp" in path)
                if left_out or (path.endswith("/k") and layer == 0):
                    continue
                a, b = rng.normal(size=(rank, d)) * d**-0.5, rng.normal(size=(rank, f)) * 0.5
                loras[path, layer] = Lora(a.astype(np.float32), b.astype(np.float32), alpha, rslora)
        made.append(Expert(f"e{i}", {}, loras))
    return made


def bank_of(config, some=None, **options) -> Bank:
    """The experts stacked."""
    return stack(experts(config) if some is None else some, base_of(config).shapes, config.layers, **options)


def gates(bank: Bank, seed=7):
    """Router leaves {path: {"gate": [s, e, d]}}."""
    rng = np.random.default_rng(seed)
    return {
        path: {"gate": jnp.asarray(rng.normal(size=(*s.a.shape[:2], s.a.shape[3])), jnp.float32)}
        for path, s in bank.sites.items()
    }


def arrays_of(config, bank=None, router=None):
    """The arrays of an adapted model."""
    bank = bank_of(config) if bank is None else bank
    router = {"places": gates(bank), "knobs": {}} if router is None else router
    return {"params": base_of(config).params, "bank": bank, "router": router}


def batch_of(b=2, t=6, left=True, seed=3) -> Batch:
    """Rows of unequal lengths, padded on one side."""
    tokens = np.random.default_rng(seed).integers(1, 40, (b, t)).astype(np.int32)
    short = np.arange(t)[None] < np.arange(b)[:, None] * 2  # row i lacks 2 i tokens
    mask = jnp.asarray(~short if left else ~short[:, ::-1])
    return Batch(jnp.asarray(tokens), mask, mask)


@partial(jit, static_argnames="adapted")
def forward(adapted: Adapted, arrays, batch, outer=None):
    """What the model gives, logits of a decoder or states of an encoder, and its records."""
    ran = run(adapted, arrays, batch, outer=outer, record=True)
    return head(adapted.model, arrays, ran.hidden) if is_decoder(adapted.model) else ran.hidden, ran.records


def explicit(config, arrays, batch, **hooks):
    """The same of the reference."""
    base = Reference(config, arrays["params"], **hooks)
    out = base.logits if hasattr(config, "kv_heads") else base.hidden
    return out(batch.tokens, batch.mask)


def loop(bank: Bank, path, layer, x, w):
    """sum_e w_e s_e B_e A_e x, expert by expert; w [b, t, e]; experts that are absent are left out."""
    total = 0.0
    s = jax.device_get(bank.sites[path]) if path in bank.sites else None
    if s is None or s.slot[layer] < 0:
        return total
    slot = s.slot[layer]
    for e in np.flatnonzero(s.present[slot]):
        total = total + w[..., e, None] * s.scale[slot, e] * ((x @ s.a[slot, e].T) @ s.b[slot, e])
    return total


def same(one, other):
    """Bit-equal."""
    np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def close(one, other, **options):
    """Equal up to float32."""
    np.testing.assert_allclose(np.asarray(one), np.asarray(other), **(CLOSE | options))
