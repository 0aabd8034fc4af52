"""From hidden states to sentence vectors."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from moejax.routing.scores import unit


def mean(hidden: Float[Array, "b t d"], pool_mask: Bool[Array, "b t"]) -> Float[Array, "b d"]:
    """Mean of the states under `pool_mask`, in float32; zero where nothing is pooled."""
    weight = pool_mask.astype(jnp.float32)[:, :, None]
    return jnp.sum(hidden.astype(jnp.float32) * weight, axis=1) / jnp.maximum(jnp.sum(weight, axis=1), 1)


def sentence(hidden: Float[Array, "b t d"], pool_mask: Bool[Array, "b t"]) -> Float[Array, "b d"]:
    """Mean of the states under `pool_mask`, brought to length 1, in float32; zero where nothing is pooled.

    Source: Reimers and Gurevych 2019 (Sentence-BERT), section 3.
    """
    return unit(mean(hidden, pool_mask))
