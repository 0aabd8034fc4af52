"""Relative positions in buckets: a learned number for each head and range of distances, added to attention logits."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int


def bucket_of(buckets: int, most: int) -> Int[np.ndarray, "some"]:
    """The bucket of each distance 0 .. most, of `buckets` in all: half for one distance each, half on a log scale.

    Distances of `most` and above share the last one. Source: Raffel et al. 2020 (T5), section 2.1, and its code.
    """
    exact = buckets // 2
    far = np.maximum(np.arange(most + 1), 1).astype(np.float32) / np.float32(exact)
    wide = np.log(far) / np.float32(math.log(most / exact)) * np.float32(buckets - exact)
    scaled = np.minimum(exact + wide.astype(np.int64), buckets - 1)
    return np.where(np.arange(most + 1) < exact, np.arange(most + 1), scaled).astype(np.int32)


def bucketed(
    queries: Int[Array, "t"], keys: Int[Array, "s"], buckets: int, most: int, both: bool
) -> Int[Array, "t s"]:
    """The bucket of each pair of places. `both`: half of the buckets are for keys that stand after the query."""
    away = keys[None, :] - queries[:, None]
    if both:
        table = jnp.asarray(bucket_of(buckets // 2, most))
        return table[jnp.minimum(jnp.abs(away), most)] + buckets // 2 * (away > 0)
    return jnp.asarray(bucket_of(buckets, most))[jnp.clip(-away, 0, most)]
