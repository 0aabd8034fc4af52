"""Vectors of label phrases: what an encoder compares texts with."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from moejax.embed.sentence import sentences
from moejax.models.base import Base


def label_vectors(base: Base, phrases: Sequence[str]) -> Float[Array, "n d"]:
    """Unit vectors of label phrases by the bare base, averaged over their own tokens."""
    return jnp.asarray(sentences(base, phrases, special=False))
