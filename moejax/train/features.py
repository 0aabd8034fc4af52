"""Activations below the lowest place, computed once per text: exact, in the model's own dtype, on disk.

No training moves them. What enters a linear above the lowest place is moved by whatever is trained below it: gates,
weights, experts, so it is exact for one step only, and is not kept.
"""

import hashlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Array, Float
from tqdm import tqdm

from moejax.adapted import prefix
from moejax.fetch import behind
from moejax.models.like_length import like_length
from moejax.types import Batch, PyTree


def size(batch: Batch, width: int, itemsize: int = 4) -> int:
    """Bytes that the activations of these rows take."""
    return int(np.prod(batch.tokens.shape)) * width * itemsize


def key(batch: Batch, fingerprint: str, dtype: str, lowest: int) -> str:
    """A name for what these rows give below layer `lowest` of a base: 16 hexadecimal digits of a sha256."""
    digest = hashlib.sha256(f"{fingerprint} {dtype} {lowest} {batch.tokens.shape}".encode())
    for leaf in (batch.tokens, batch.mask, batch.prompt):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:16]


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

    Computed in batches of rows of like length, no wider than these need; padding beyond is left at zero, which no
    real token sees. Mapped from the file, so that memory holds only what is used.
    Raises OSError when there is no room for them: it is taken before the first is computed.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + f".{os.getpid()}.part")
        rows, t = whole.tokens.shape
        store = np.lib.format.open_memmap(
            part, "w+", np.dtype(model.config.dtype), (rows, t, model.config.width)
        )
        _take_room(part)
        ends = t - np.argmax(whole.mask[:, ::-1], axis=1)  # the place after each row's last real token
        total, off = -(-rows // batch), not progress

        def below() -> Iterator[tuple[np.ndarray, Array]]:
            for index, wide in like_length(ends, batch):
                width, full = min(t, wide), np.pad(index, (0, batch - len(index)), mode="edge")
                some = Batch(*(leaf[full, :width] for leaf in (whole.tokens, whole.mask, whole.prompt)))
                yield index, _below(params, some, model=model, lowest=lowest)

        for index, found in tqdm(behind(below()), "features", total, unit="batch", disable=off):
            store[index, : found.shape[1]] = found[: len(index)]
        store.flush()
        del store
        os.replace(part, path)
    return np.load(path, mmap_mode="r").view(model.config.dtype)  # numpy forgets the name of bfloat16


def _take_room(path: Path) -> None:
    """Have the disk give all blocks of a file now: a mapped file that meets a full disk later kills the process."""
    if hasattr(os, "posix_fallocate"):  # macOS lacks it
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


@partial(jax.jit, static_argnames=("model", "lowest"))
def _below(params: PyTree, batch: Batch, *, model: nn.Module, lowest: int) -> Float[Array, "b t d"]:
    return prefix(model, params, batch, lowest)
