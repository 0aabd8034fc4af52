"""An adapted model asked in words: how likely is each of these answers to each of these texts?"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from moejax.adapted import Adapted, score
from moejax.data.batch import collate
from moejax.data.encode import encode
from moejax.data.tasks import Row, Task
from moejax.evaluate.labels import label_vectors
from moejax.fetch import fetch
from moejax.models.base import Base
from moejax.paged import for_batch
from moejax.types import Batch, PyTree, UserError

MULTIPLE = 8  # widths of batches


def log_probabilities(
    base: Base,
    adapted: Adapted,
    arrays: PyTree,
    texts: Sequence[str],
    instruction: str,
    choices: Sequence[str],
    window: int = 256,
) -> Float[np.ndarray, "b c"]:
    """Log-probability of each choice for each text, by any base; the best is `argmax(axis=1)`.

    base: whole, as `weights.load` gives it. A decoder's and a seq2seq's is that of the whole answer, a sum over
    its tokens, and a row does not sum to 1. A text that does not fit the window is cut at its end.
    Raises UserError for fewer than two choices, no text, or a base without a tokenizer.
    """
    if base.tokenizer is None:
        raise UserError("the base has no tokenizer: load it from a folder that holds one")
    if len(set(choices)) < 2 or len(set(choices)) < len(choices):
        raise UserError(f"choices are {list(choices)}: give at least two, each once")
    if not texts:
        raise UserError("texts is empty: give at least one")
    given, phrases = tuple(choices), list(choices)
    most = getattr(base.model.config, "positions", window)  # pyright: ignore[reportAttributeAccessIssue]
    window = min(window, most - most % MULTIPLE)
    rows = tuple(Row(text, instruction, given[0]) for text in texts)
    task = Task("choices", "classification", "", instruction, {"test": rows}, given, given)
    encoded = encode(task, rows, base.tokenizer, window, base.kind, phrases, answers="each")
    labels = None if base.kind != "encoder" else label_vectors(base, phrases)
    batch = jax.tree.map(jnp.asarray, collate(encoded))
    found = _score({**for_batch(arrays, batch), "labels": labels}, batch, adapted=adapted)
    return fetch(found).reshape(len(texts), len(given))


@partial(jax.jit, static_argnames="adapted")
def _score(arrays: PyTree, batch: Batch, *, adapted: Adapted) -> Float[Array, "..."]:
    """Of each choice; of a decoder's answers, which are rows of their own, the sum over their tokens."""
    found, _ = score(adapted, arrays, batch)
    return found if batch.answer is None else jnp.sum(found * batch.answer, axis=1)
