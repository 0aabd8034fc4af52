"""The input pipeline: batches of the next steps are made, and sent to the device, while it works."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax

from moejax.types import PyTree

AHEAD = 2  # batches that wait for their step


@contextmanager
def ahead(stream: Callable[[int], PyTree], first: int, steps: int) -> Iterator[Iterator[PyTree]]:
    """`stream(number)` of the steps from `first` up to `steps`, in their order, on the device.

    One thread makes them one after the other (grain), so `stream` need not bear several at once. An error of
    `stream` is raised where its batch is asked for, after all batches before it.
    """
    import grain

    made = grain.MapDataset.range(first, steps).map(lambda number: jax.tree.map(_sent, stream(int(number))))
    found = iter(made.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=AHEAD)))
    try:
        yield found
    finally:
        found.close()


def _sent(leaf: Any) -> jax.Array:
    """On the device; what lies on devices, of other processes too, stays there."""
    return leaf if isinstance(leaf, jax.Array) else jax.device_put(leaf)
