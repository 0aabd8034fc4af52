"""Vectors of label phrases: what an encoder compares texts with."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from moejax.adapted import Adapted, vectors
from moejax.experts.bank import stack
from moejax.models.base import Base
from moejax.types import Batch


def label_vectors(base: Base, phrases: Sequence[str], size: int = 64) -> Float[Array, "n d"]:
    """Unit vectors of label phrases by the bare base, averaged over their own tokens."""
    arrays = {"params": base.params, "bank": stack([], base.shapes, base.layers), "router": {}}
    found = []
    for start in range(0, len(phrases), size):
        some = list(phrases[start : start + size])
        text = base.tokenizer(
            some + [""] * (size - len(some)),
            padding=True,
            return_special_tokens_mask=True,
            return_tensors="np",
        )
        mask = text["attention_mask"].astype(bool)
        pool = mask & ~text["special_tokens_mask"].astype(bool)
        batch = Batch(
            jnp.asarray(text["input_ids"], jnp.int32), jnp.asarray(mask), jnp.asarray(mask), jnp.asarray(pool)
        )
        found.append(jax.jit(lambda a, b: vectors(Adapted(base.model), a, b)[0])(arrays, batch)[: len(some)])
    return jnp.concatenate(found)
