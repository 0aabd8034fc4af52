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
from jaxtyping import Array, Float, Int
from tqdm import tqdm

from moejax.adapted import prefix
from moejax.fetch import behind
from moejax.models.like_length import like_length
from moejax.parallel import hosts
from moejax.parallel.spread import by_rows, spread
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
    if not hosts.first(path.exists):
        part, sharding = path.with_name(path.name + f".{os.getpid()}.part"), by_rows()
        rows, t = whole.tokens.shape
        stores: list[np.memmap] = []  # of process 0 alone
        hosts.write(
            lambda: stores.append(_store(part, (rows, t, model.config.width), np.dtype(model.config.dtype)))
        )
        ends = t - np.argmax(whole.mask[:, ::-1], axis=1)  # the place after each row's last real token
        total, off = -(-rows // batch), not progress

        def below() -> Iterator[tuple[np.ndarray, Array]]:
            for index, wide in like_length(ends, batch):
                width, full = min(t, wide), np.pad(index, (0, batch - len(index)), mode="edge")
                some = spread(partial(_some, whole, full, width), batch, sharding)
                yield index, _below(params, some, model=model, lowest=lowest)

        for index, found in tqdm(behind(below()), "features", total, unit="batch", disable=off):
            for store in stores:
                store[index, : found.shape[1]] = found[: len(index)]
        for store in stores:
            store.flush()
        stores.clear()
        hosts.write(lambda: os.replace(part, path))
    return np.load(path, mmap_mode="r").view(model.config.dtype)  # numpy forgets the name of bfloat16


def _some(whole: Batch, rows: np.ndarray, width: int, numbers: Int[np.ndarray, "n"]) -> Batch:
    """What these of the rows are, as far as they are read."""
    return Batch(*(leaf[rows[numbers], :width] for leaf in (whole.tokens, whole.mask, whole.prompt)))


def _store(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.memmap:
    """A file of that size, mapped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    store = np.lib.format.open_memmap(path, "w+", dtype, shape)
    _take_room(path)
    return store


def _take_room(path: Path) -> None:
    """Have the disk give all blocks of a file now: a mapped file that meets a full disk later kills the process."""
    if hasattr(os, "posix_fallocate"):  # macOS lacks it
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


@partial(jax.jit, static_argnames=("model", "lowest"))
def _below(params: PyTree, batch: Batch, *, model: nn.Module, lowest: int) -> Float[Array, "b t d"]:
    return prefix(model, params, batch, lowest)
