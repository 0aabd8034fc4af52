"""Which expert each token of an answer used: the weights of the step that wrote it, averaged over adapted places."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from moejax.adapted import Adapted, run
from moejax.evaluate.continuations import paired
from moejax.evaluate.routing import adapted_layers, named
from moejax.fetch import fetch
from moejax.models.base import Base
from moejax.models.prompts import tokenizer_of
from moejax.paged import for_batch, of_all
from moejax.routing import select
from moejax.site import sown
from moejax.types import Batch, PyTree


@partial(jax.jit, static_argnames=("adapted", "most", "apart"))
def _weights(
    arrays: PyTree, batch: Batch, *, adapted: Adapted, most: int, apart: bool
) -> Float[Array, "b n e"]:
    """Mean weights at the last `most` tokens; `apart`: a text is encoded first, and its own tokens' are left out."""
    bank = arrays["bank"]
    total, layers = jnp.zeros((len(batch.tokens), most, bank.alive.size)), 0
    for path, weights in sown(run(adapted, arrays, batch, record=True).records, "weights").items():
        w = select.dense(weights, bank.alive.size)
        if w.ndim == 4 and apart and not path.startswith("layers/"):
            continue
        here = adapted_layers(bank, path, len(w))
        each = jnp.einsum("l,l...->...", here.astype(jnp.float32), w)
        each = each[:, -most:] if each.ndim == 3 else each.reshape(-1, 1, each.shape[-1])
        total, layers = total + each, layers + jnp.sum(here)
    return total / jnp.maximum(layers, 1)


def used(
    base: Base,
    adapted: Adapted,
    arrays: PyTree,
    names: Sequence[str],
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    query: Float[np.ndarray, "n q"] | None = None,
) -> list[dict[str, Any]]:
    """One record an answer: `tokens` in words, their `expert` (None: no weight on any), its `weight`, mean `weights`.

    One whole forward over prompt and answer, the prompt alone marked as the request: what decoding did step by step.
    """
    experts, found = named(arrays["bank"], names), []
    for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        rows = np.zeros((0, arrays["bank"].alive.size))
        if answer:
            batch, most = paired(base, [(prompt, answer)], len(prompt) + len(answer))
            batch = batch._replace(query=None if query is None else query[i : i + 1])
            apart = base.kind not in ("encoder", "decoder")
            given = for_batch(arrays, batch)
            each = _weights(given, batch, adapted=adapted, most=most, apart=apart)
            each = fetch(of_all(arrays, each))[0]
            rows = each[np.asarray(batch.answer)[0, -most:]]
        found.append(_record(rows, [tokenizer_of(base).decode([token]) for token in answer], experts))
    return found


def _record(
    rows: Float[np.ndarray, "t e"], words: Sequence[str], experts: Mapping[int, str]
) -> dict[str, Any]:
    best = [max(experts, key=lambda e: row[e], default=None) for row in rows]
    top = [None if e is None or row[e] <= 0 else e for e, row in zip(best, rows, strict=True)]
    mean = rows.mean(axis=0) if len(rows) else np.zeros(rows.shape[-1])
    return {
        "tokens": list(words),
        "expert": [None if e is None else experts[e] for e in top],
        "weight": [0.0 if e is None else round(float(row[e]), 4) for e, row in zip(top, rows, strict=True)],
        "weights": {name: round(float(mean[e]), 4) for e, name in experts.items()},
    }
