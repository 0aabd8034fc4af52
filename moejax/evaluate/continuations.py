"""log p(continuation | context) of a base with its experts, by batch, and whether greedy gives it."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from moejax.adapted import Adapted, head, run
from moejax.fetch import fetch
from moejax.models.base import Base
from moejax.models.prompts import bucket, left_padded, tokenizer_of
from moejax.paged import for_batch
from moejax.types import Batch, PyTree

Pair = tuple[Sequence[int], Sequence[int]]  # ids of context and continuation


@partial(jax.jit, static_argnames=("adapted", "most"))
def _scored(
    arrays: PyTree, batch: Batch, *, adapted: Adapted, most: int
) -> tuple[Float[Array, "b"], Bool[Array, "b"]]:
    """Sum over the answer's positions, all among the last `most`: the head is computed there alone."""
    hidden = run(adapted, arrays, batch).hidden[:, -most:]
    logits = head(adapted.model, arrays, hidden).astype(jnp.float32)
    targets, answer = batch.targets[:, -most:], batch.answer[:, -most:]
    logp = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)[..., 0]
    right = jnp.argmax(logits, axis=-1) == targets
    return jnp.sum(jnp.where(answer, logp, 0), axis=1), jnp.all(right | ~answer, axis=1)


def continuations(
    base: Base,
    adapted: Adapted,
    arrays: PyTree,
    pairs: Sequence[Pair],
    size: int,
    longest: int,
    query: bool = False,
) -> list[tuple[float, bool]]:
    """For each pair sum_j log p(continuation_j | context, continuation_<j), and whether each token is the likeliest.

    No context may be empty. Of more than `longest` + 1 tokens the first are cut off. Routers see the context as the
    request, never the continuation. size: pairs at once; query: whether they look at sentence vectors of contexts.
    """
    found: dict[int, tuple[float, bool]] = {}
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]) + len(pairs[i][1]))
    sent, scored = [], []
    for at in range(0, len(order), size):
        numbers = order[at : at + size]
        batch, most = paired(base, [pairs[i] for i in numbers], longest)
        if query and base.embedder is not None:
            texts = [tokenizer_of(base).decode(pairs[i][0], skip_special_tokens=True) for i in numbers]
            vectors = base.embedder(texts + texts[:1] * (len(batch.tokens) - len(texts)))
            batch = batch._replace(query=vectors)
        sent.append(numbers)
        scored.append(_scored(for_batch(arrays, batch), batch, adapted=adapted, most=most))
    for numbers, (sums, greedy) in zip(sent, fetch(scored), strict=True):
        found |= {i: (float(s), bool(g)) for i, s, g in zip(numbers, sums, greedy, strict=False)}
    return [found[i] for i in range(len(pairs))]


def paired(base: Base, pairs: Sequence[Pair], longest: int) -> tuple[Batch, int]:
    """Contexts with continuations as one batch on the host, and how many of the last positions hold all that is scored.

    Decoder: rows without their last token, which is only predicted, padded on the left, the context marked as the
    request. A model that encodes its text: the context, and the continuation beside it.
    """
    count = bucket(len(pairs))
    filled = [pairs[i] if i < len(pairs) else pairs[0] for i in range(count)]
    most = bucket(max(len(answer) for _, answer in pairs))
    if base.kind not in ("encoder", "decoder"):
        batch = left_padded([context[-longest:] for context, _ in filled], count)
        targets, answer = np.zeros((count, most), np.int32), np.zeros((count, most), bool)
        for i, (_, ids) in enumerate(filled):
            targets[i, : len(ids)], answer[i, : len(ids)] = ids, True
        return batch._replace(targets=targets, answer=answer), most
    rows = [[*context, *answer][-(longest + 1) :] for context, answer in filled]
    batch = left_padded([row[:-1] for row in rows], count)
    width, prompt = batch.tokens.shape[1], batch.mask.copy()
    targets, answer = np.zeros((count, width), np.int32), np.zeros((count, width), bool)
    for i, (row, (_, ids)) in enumerate(zip(rows, filled, strict=True)):
        targets[i, width - len(row) + 1 :] = row[1:]
        answer[i, width - len(ids) :] = True
        prompt[i, width - len(ids) + 1 :] = False
    return batch._replace(prompt=prompt, targets=targets, answer=answer), min(width, most)
