"""An endless shuffled stream of batches: indexable by step, the same from the same seed, resumed exactly."""

from typing import Any

import numpy as np
from jaxtyping import Int

from moejax.types import Batch, UserError


def stream(rows: Batch, batch: int, seed: int, process: int = 0, processes: int = 1) -> Any:
    """A `grain.MapDataset` whose element at `step` is the batch of that step; each epoch is shuffled anew.

    rows: all rows as one batch of numpy arrays. With several processes there is one global order, and each
    process gets its slice of every global batch of `batch` rows. No worker processes are started.
    Raises UserError where there are no rows, or the batch does not divide among the processes.
    """
    import grain

    count = len(rows.tokens)
    if not count:
        raise UserError("there are no rows to draw batches from")
    if batch < 1 or batch % processes:
        raise UserError(
            f"a batch of {batch} rows does not divide among {processes} processes; use a multiple"
        )
    each = batch // processes
    own = slice(process * each, (process + 1) * each)
    order = grain.MapDataset.range(count).shuffle(seed=seed).repeat().batch(batch)
    return order.map(lambda index: take(rows, index[own]))


def iterate(batches: Any, state: dict[str, Any] | None = None) -> Any:
    """An iterator over a stream, in this process, that goes on from `state`.

    Its `get_state()` is a small dict for a checkpoint, its `set_state(state)` goes back to one.
    """
    import grain

    found = iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=0)))
    if state is not None:
        found.set_state(state)
    return found


def take(rows: Batch, index: Int[np.ndarray, "n"]) -> Batch:
    """These rows, in this order, each of weight 1."""
    leaves: dict[str, Any] = {
        name: None if leaf is None else np.asarray(leaf)[index] for name, leaf in rows._asdict().items()
    }
    leaves["weight"] = np.ones(len(index), np.float32)
    return Batch(**leaves)
