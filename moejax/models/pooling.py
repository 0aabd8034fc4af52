"""From hidden states to sentence vectors."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def sentence(hidden: Float[Array, "b t d"], pool_mask: Bool[Array, "b t"]) -> Float[Array, "b d"]:
    """Mean of the states under `pool_mask`, brought to length 1, in float32; zero where nothing is pooled.

    Source: Reimers and Gurevych 2019 (Sentence-BERT), section 3.
    """
    weight = pool_mask.astype(jnp.float32)[:, :, None]
    mean = jnp.sum(hidden.astype(jnp.float32) * weight, axis=1) / jnp.maximum(jnp.sum(weight, axis=1), 1)
    square = jnp.sum(mean**2, axis=1, keepdims=True)
    return mean * jnp.where(square > 0, jnp.where(square > 0, square, 1.0) ** -0.5, 0.0)
