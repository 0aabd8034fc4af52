"""Losses of each row: of its right answer, and, where no label is looked at, of how uncertain the prediction is."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from moejax.adapted import Adapted, head, is_decoder, run, score
from moejax.models.seq2seq import Seq2Seq
from moejax.routing.select import FAR
from moejax.types import Batch, PyTree


def row_loss(adapted: Adapted, arrays: PyTree, batch: Batch, **options) -> tuple[Float[Array, "b"], PyTree]:
    """`loss_of` each row, and the records."""
    logp, records = score(adapted, arrays, batch, **options)
    return loss_of(logp, batch), records


def entropy(adapted: Adapted, arrays: PyTree, batch: Batch, **options) -> tuple[Float[Array, "b"], PyTree]:
    """-sum_c p_c log p_c of each row's prediction, and the records: no label is looked at.

    Encoder: over the row's choices. Decoder: over the vocabulary, after the request (seq2seq: the start token).
    """
    if is_decoder(adapted.model):
        ran = run(adapted, arrays, batch, **options)
        t = batch.prompt.shape[1]
        last = jnp.max(jnp.where(batch.prompt, jnp.arange(t), 0), axis=1)
        last = jnp.zeros_like(last) if isinstance(adapted.model, Seq2Seq) else last
        states = jnp.take_along_axis(ran.hidden, last[:, None, None], axis=1)[:, 0]
        logp, records = (
            jax.nn.log_softmax(head(adapted.model, arrays, states).astype(jnp.float32)),
            ran.records,
        )
    else:
        logp, records = score(adapted, arrays, batch, **options)
    return -jnp.sum(jnp.exp(logp) * jnp.maximum(logp, FAR), axis=-1), records


def loss_of(logp: Float[Array, "b c_or_t"], batch: Batch) -> Float[Array, "b"]:
    """Negative log-probability of each row's right label, or mean over its answer tokens, from `score`."""
    if batch.answer is not None:
        return -jnp.sum(logp * batch.answer, axis=1) / jnp.maximum(jnp.sum(batch.answer, axis=1), 1)
    assert batch.targets is not None
    return -jnp.take_along_axis(logp, batch.targets[:, None], axis=1)[:, 0]
