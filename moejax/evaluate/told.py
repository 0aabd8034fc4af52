"""A decoder's answers: how likely it finds given ones, which it would choose, and what it writes itself."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from moejax.adapted import Adapted, score, start, step
from moejax.evaluate.asked import Asked
from moejax.evaluate.metrics import exact_match, rouge_l
from moejax.fetch import fetch
from moejax.models.generate import Generated, generate
from moejax.paged import for_batch
from moejax.train.rows import ArrayRows, batches
from moejax.types import Batch, PyTree


@partial(jax.jit, static_argnames="adapted")
def likelihood(arrays: PyTree, batch: Batch, *, adapted: Adapted) -> Float[Array, "b"]:
    """log p(answer | request) of each line, a sum over the answer's tokens."""
    return jnp.sum(score(adapted, arrays, batch)[0] * batch.answer, axis=1)


@partial(jax.jit, static_argnames=("adapted", "most", "eos", "pad"))
def write(
    arrays: PyTree, batch: Batch, *, adapted: Adapted, most: int, eos: tuple[int, ...], pad: int
) -> Generated:
    """What follows each request (padded on the left), greedily: the prompts at once, then a token at a time."""
    begin = partial(_start, adapted=adapted, room=most)
    return generate(begin, partial(_step, adapted=adapted), arrays, batch, max_new=most, eos=eos, pad=pad)


def _start(arrays: PyTree, batch: Batch, *, adapted: Adapted, room: int) -> Any:
    return start(adapted, arrays, batch, room)


def _step(arrays: PyTree, token: Int[Array, "b"], state: Any, *, adapted: Adapted) -> Any:
    return step(adapted, arrays, token, state)


def told(
    adapted: Adapted,
    arrays: PyTree,
    asked: Asked,
    tokenizer: Any,
    size: int,
    most: int,
    stop: Sequence[str] = (),
) -> dict[str, np.ndarray]:
    """Of each test row: what it is worth by each measure, and the loss and the size of its right answer.

    choice, choice_norm: the option of the highest log-likelihood, a sum over its tokens, and the one of the highest
    log-likelihood by character (lm_eval's `acc` and `acc_norm`). exact_match, rouge_l: of the text that was written.
    loss, bytes, tokens: -log-likelihood of the right answer, and what it is long.
    """
    logp = likelihoods(adapted, arrays, asked.lines, size)
    right = np.searchsorted(asked.row, np.arange(len(asked.right))) + asked.right
    found = {"loss": -logp[right], "bytes": asked.size[right, 1], "tokens": asked.size[right, 2]}
    if asked.requests is None:
        ends = np.searchsorted(asked.row, np.arange(1, len(asked.right)))
        normed = logp / asked.size[:, 0]
        best = [[int(np.argmax(one)) for one in np.split(part, ends)] for part in (logp, normed)]
        return {"choice": np.array(best[0]), "choice_norm": np.array(best[1]), **found}
    texts = written(adapted, arrays, asked.requests, tokenizer, size, most, stop)
    return {
        "exact_match": exact_match(texts, asked.references), "rouge_l": rouge_l(texts, asked.references), **found
    }  # fmt: skip


def likelihoods(adapted: Adapted, arrays: PyTree, lines: ArrayRows, size: int) -> Float[np.ndarray, "m"]:
    """`likelihood` of every line, float64; batches are sent ahead of their results being read."""
    found = [
        (likelihood(for_batch(arrays, batch), batch, adapted=adapted), real)
        for batch, real in batches(lines, size)
    ]
    return np.concatenate([part[:real] for part, real in fetch(found)]).astype(float)


def written(
    adapted: Adapted,
    arrays: PyTree,
    requests: ArrayRows,
    tokenizer: Any,
    size: int,
    most: int,
    stop: Sequence[str] = (),
) -> list[str]:
    """What is written after each request, up to the end token, `most` tokens or the first of the texts in `stop`."""
    eos = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
    pad = tokenizer.pad_token_id or 0
    found = [
        (write(for_batch(arrays, batch), batch, adapted=adapted, most=most, eos=eos, pad=pad), real)
        for batch, real in batches(requests, size)
    ]
    texts = []
    for (tokens, lengths), real in fetch(found):
        texts += [
            tokenizer.decode(tokens[i, : lengths[i]].tolist(), skip_special_tokens=True) for i in range(real)
        ]
    for end in stop:
        texts = [text.split(end)[0] for text in texts]
    return texts
