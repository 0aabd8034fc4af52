"""Cross-attention from one model's hidden states to another's: keys and values first, then what is added.

Weights of one connection, each with a leading axis of e attended models: project [e, d, f], q, k, v, o [e, f, f] and,
if what is added is normalised, norm [e, f]. The heads of all attended models stand side by side.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

EPS = 1e-6


def project(
    weights: Mapping[str, Float[Array, "n e ..."]], states: Float[Array, "n b e t d"], heads: int
) -> tuple[Float[Array, "n b t h dh"], Float[Array, "n b t h dh"]]:
    """Keys P W_K and values P W_V, P = H W_P, of n connections at once, in e times `heads` heads."""
    p = jnp.einsum("nbetd,nedf->nbtef", states.astype(jnp.float32), weights["project"])
    k, v = (jnp.einsum("nbtef,nefg->nbteg", p, weights[name]) for name in "kv")
    split = (*k.shape[:3], k.shape[3] * heads, k.shape[4] // heads)
    return k.reshape(split), v.reshape(split)


def attend(
    weights: Mapping[str, Float[Array, "e ..."]],
    x: Float[Array, "b t f"],
    keys: Float[Array, "b s h dh"],
    values: Float[Array, "b s h dh"],
    mask: Bool[Array, "b 1 t s"] | None,
) -> Float[Array, "b t e f"]:
    """concat_heads(softmax(Q K^T / sqrt(dh)) V) W_O of each attended model, Q = x W_Q; mask None: all is seen.

    With "norm", y / rms(y) (1 + norm) of it. Source: Bansal et al. 2024 (2401.02412), section 3.2.
    """
    q = jnp.einsum("btf,efg->bteg", x.astype(jnp.float32), weights["q"])
    heads = (*q.shape[:2], *keys.shape[2:])
    mixed = jax.nn.dot_product_attention(q.reshape(heads), keys, values, mask=mask)
    y = jnp.einsum("bteg,egf->btef", mixed.reshape(q.shape), weights["o"])
    if "norm" not in weights:
        return y
    rms = jnp.sqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + EPS)
    return y / rms * (1.0 + weights["norm"])[None, None]
