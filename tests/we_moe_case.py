"""What tests of WEMoE share: experts, arrays, and the states that a model ends in."""

import jax
import jax.numpy as jnp
import numpy as np
import world as worlds

from moejax.adapted import run
from moejax.contract import Fitted
from moejax.experts.expert import Expert
from moejax.experts.lora import Lora as Factors
from moejax.experts.pool import pool_of
from moejax.methods.we_moe import METHOD, PATH, Config

SITES = ("layers/mlp/up", "layers/mlp/down", "layers/attn/q")


def expert(base, name, paths=SITES, size=0.3):
    """An expert of rank 2 at these linears of every layer."""
    rng, loras = np.random.default_rng(sum(map(ord, name))), {}
    for path in paths:
        d, f = base.shapes[path]
        for layer in range(base.layers):
            a, b = rng.normal(size=(2, d)) * size, rng.normal(size=(2, f)) * size
            loras[path, layer] = Factors(a.astype(np.float32), b.astype(np.float32), 3.0)
    return Expert(name, {}, loras)


def some_pool(base, names=worlds.NAMES, **options):
    return pool_of([expert(base, name, **options) for name in names], base.sites, base.shapes, base.layers)


def arrays_of(base, pool, leaves, merge=0.3, config=None):
    router = {"places": {PATH: leaves}, "knobs": {"lambda": jnp.float32(merge)}}
    return METHOD.arrays(config or Config(), base, pool, Fitted(router, pool.names))


def constant(base, weights):
    """Routers of depth 0 that give these weights in every layer."""
    return {"b2": jnp.tile(jnp.asarray(weights, jnp.float32), (base.layers, 1))}


def hidden(adapted, arrays, batch):
    given = {name: arrays[name] for name in ("params", "bank", "router")}
    return np.asarray(jax.jit(run, static_argnums=0)(adapted, given, batch).hidden)


def close(one, other, **options):
    np.testing.assert_allclose(one, other, **{"rtol": 0, "atol": 1e-5} | options)
