"""Mixing bottleneck adapters equals the sum spelled out, whatever the grain of the weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moejax.aggregation import bottleneck as mixing
from moejax.experts import bank as banks
from moejax.experts import bottleneck
from moejax.experts.bottleneck import ACTS, Bottleneck
from moejax.experts.expert import Expert
from moejax.routing import select
from moejax.types import Weights

B, T, D, E, PATH = 3, 4, 5, 4, "layers/mlp_join"
LEADS = {"task": (), "example": (B,), "step": (B, T)}


def experts():
    """Four of ranks 1 to 3 and different non-linearities; the third does not stand in layer 1."""
    rng, made = np.random.default_rng(0), []
    for e in range(E):
        parts = {}
        for layer in (0, 1)[: 1 if e == 2 else 2]:
            r = 1 + (e + layer) % 3
            leaves = [rng.normal(size=size).astype(np.float32) for size in ((r, D), r, (r, D), D)]
            parts[PATH, layer] = Bottleneck(*leaves, list(ACTS)[e], 1.0 + e / 2)
        made.append(Expert(f"e{e}", {}, {}, parts))
    return made


H = np.random.default_rng(1).normal(size=(B, T, D)).astype(np.float32)
OUTPUT = jax.jit(mixing.output)


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("lead", LEADS)
@pytest.mark.parametrize("k", [None, 1, 2])
def test_it_is_the_weighted_sum_of_what_each_gives(layer, lead, k):
    some, rng = experts(), np.random.default_rng(2)
    stack = banks.stack(some, {}, 2).sites[PATH]
    each = np.stack([
        bottleneck.apply(one.bottlenecks[PATH, layer], H) if (PATH, layer) in one.bottlenecks else np.zeros_like(H)
        for one in some
    ])  # fmt: skip
    if k is None:
        weights = Weights(jnp.asarray(rng.normal(size=(*LEADS[lead], E)), jnp.float32))
    else:
        index = rng.permuted(np.broadcast_to(np.arange(E), (*LEADS[lead], E)), axis=-1)[..., :k]
        weights = Weights(
            jnp.asarray(rng.normal(size=index.shape), jnp.float32), jnp.asarray(index, jnp.int32)
        )
    w = np.asarray(select.dense(weights, E))
    w = (
        w.reshape((1,) * (2 - len(LEADS[lead])) + w.shape)
        if lead == "task"
        else w[:, None]
        if lead == "example"
        else w
    )
    wanted = np.einsum("bte,ebtd->btd", np.broadcast_to(w, (B, T, E)), each)
    np.testing.assert_allclose(
        OUTPUT(jnp.asarray(H), stack, jnp.int32(layer), weights), wanted, rtol=0, atol=2e-5
    )
