"""How often an adapted encoder is right on granted rows, or how likely a decoder finds their answers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from moejax.adapted import Adapted, score
from moejax.contract import Rows
from moejax.fetch import fetch
from moejax.loss import loss_of
from moejax.train.rows import batches
from moejax.types import Batch, PyTree


@partial(jax.jit, static_argnames="adapted")
def quality(arrays: PyTree, batch: Batch, *, adapted: Adapted) -> Float[Array, "2 b"]:
    """Of each row: 1 if its best choice is right (decoder: likelihood of its answer), and minus its loss."""
    return graded(score(adapted, arrays, batch)[0], batch)


def graded(logp: Float[Array, "b c_or_t"], batch: Batch) -> Float[Array, "2 b"]:
    """The same, from what `score` gave."""
    said = -loss_of(logp, batch)
    right = jnp.exp(said) if batch.answer is not None else jnp.argmax(logp, axis=1) == batch.targets
    return jnp.stack([right.astype(jnp.float32), said])


def qualities(
    adapted: Adapted, arrays: PyTree, rows: Rows, size: int, most: int | None = None
) -> Float[np.ndarray, "2 n"]:
    """`quality` of the first `most` rows (all by default), in batches of `size`."""
    found = []
    for batch, real in batches(rows, size):
        found.append((quality(arrays, batch, adapted=adapted), real))
        if most is not None and size * len(found) >= most:
            break
    return np.concatenate([part[:, :real] for part, real in fetch(found)], axis=1)[:, :most]


def accuracy(adapted: Adapted, arrays: PyTree, rows: Rows, size: int, most: int | None = None) -> float:
    """Mean of `quality`'s first row."""
    return float(np.mean(qualities(adapted, arrays, rows, size, most)[0]))
