"""Sentence vectors by an encoder: the mean of a text's last states, brought to length one."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from tqdm import tqdm

from moejax.fetch import behind
from moejax.models.base import Base
from moejax.models.like_length import like_length
from moejax.models.pooling import sentence
from moejax.types import PyTree, UserError


def sentences(
    base: Base,
    texts: Sequence[str],
    window: int = 256,
    size: int = 64,
    special: bool = True,
    progress: bool = False,
) -> Float[np.ndarray, "n q"]:
    """Unit vectors of texts, cut to `window` tokens; in batches of texts of like length, no wider than these need.

    special: whether [CLS] and [SEP] count in the mean, as they do in sentence-transformers.
    Raises UserError when the base is no encoder, or has no tokenizer.
    """
    if base.kind != "encoder" or base.tokenizer is None:
        lacks = "is no encoder" if base.kind != "encoder" else "has no tokenizer"
        raise UserError(
            f"{base.folder or 'the base'} {lacks}: sentence vectors need one, as --embedder minilm"
        )
    config: Any = base.model.config
    found = np.zeros((len(texts), config.width), np.float32)
    if not len(texts):
        return found
    cut = {"truncation": True, "max_length": min(window, config.positions), "verbose": False}
    ids = base.tokenizer(list(texts), **cut)["input_ids"]
    inner = set() if special else {base.tokenizer.cls_token_id, base.tokenizer.sep_token_id}
    lengths, total, off = np.array([len(line) for line in ids]), -(-len(ids) // size), not progress

    def vectors() -> Iterator[tuple[np.ndarray, Array]]:
        for index, width in like_length(lengths, size):
            tokens, mask = _padded([ids[i] for i in index], size, width)
            pool = mask & ~np.isin(tokens, list(inner))
            yield index, _vectors(base.params, tokens, mask, pool, model=base.model)

    for index, some in tqdm(behind(vectors()), "sentence vectors", total, unit="batch", disable=off):
        found[index] = some[: len(index)]
    return found


def _padded(
    lines: Sequence[Sequence[int]], size: int, width: int
) -> tuple[Int[np.ndarray, "b t"], Bool[np.ndarray, "b t"]]:
    """Tokens and mask of `size` rows; rows that fill the batch hold one token."""
    tokens, mask = np.zeros((size, width), np.int32), np.zeros((size, width), bool)
    mask[:, 0] = True
    for row, line in enumerate(lines):
        tokens[row, : len(line)], mask[row, : len(line)] = line, True
    return tokens, mask


@partial(jax.jit, static_argnames="model")
def _vectors(
    params: PyTree,
    tokens: Int[Array, "b t"],
    mask: Bool[Array, "b t"],
    pool: Bool[Array, "b t"],
    *,
    model: nn.Module,
) -> Float[Array, "b q"]:
    hidden, _ = model.apply({"params": params}, jnp.asarray(tokens), mask)  # type: ignore[misc]
    return sentence(hidden, pool)
