"""Activations below the lowest place, computed once per text: exact, in the model's own dtype, on disk."""

import os
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Array, Float
from tqdm import tqdm

from moejax.adapted import prefix
from moejax.types import Batch, PyTree


def size(batch: Batch, width: int, itemsize: int = 4) -> int:
    """Bytes that the activations of these rows take."""
    return int(np.prod(batch.tokens.shape)) * width * itemsize


def features(
    model: nn.Module,
    params: PyTree,
    whole: Batch,
    lowest: int,
    path: Path,
    batch: int = 64,
    progress: bool = False,
) -> Float[np.ndarray, "n t d"]:
    """Activations that enter layer `lowest`, for all rows; read from `path` when they are there already.

    Computed in batches of one shape and mapped from the file, so that memory holds only what is used.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + f".{os.getpid()}.part")
        rows, t = whole.tokens.shape
        store = np.lib.format.open_memmap(
            part, "w+", np.dtype(model.config.dtype), (rows, t, model.config.width)
        )
        for start in tqdm(range(0, rows, batch), desc="features", unit="batch", disable=not progress):
            index = np.minimum(np.arange(start, start + batch), rows - 1)
            some = Batch(whole.tokens[index], whole.mask[index], whole.prompt[index])
            found = np.asarray(_below(params, some, model=model, lowest=lowest))
            store[start : start + batch] = found[: rows - start]
        store.flush()
        del store
        os.replace(part, path)
    return np.load(path, mmap_mode="r").view(model.config.dtype)  # numpy forgets the name of bfloat16


@partial(jax.jit, static_argnames=("model", "lowest"))
def _below(params: PyTree, batch: Batch, *, model: nn.Module, lowest: int) -> Float[Array, "b t d"]:
    return prefix(model, params, batch, lowest)
