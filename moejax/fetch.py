"""Results on the host: the one place where a loop waits for the device."""

from collections.abc import Iterable, Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils

from moejax.types import PyTree


def fetch(outputs: PyTree) -> PyTree:
    """What jitted steps gave, its leaves as numpy arrays, all in one transfer; leaves of the host stay as they are.

    Rows that lie on devices of several processes come to all of them, so all must ask alike.
    Loops of training and evaluation read results in no other way: a `float(loss)` between two steps would keep the
    device idle until the host has sent the next. Checkpoints alone are read by orbax, which knows shards.
    """
    return jax.device_get(jax.tree.map(_gathered, outputs))


def _gathered(leaf: Any) -> Any:
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated:
        return leaf
    return multihost_utils.process_allgather(leaf, tiled=True)


def behind(outputs: Iterable[PyTree]) -> Iterator[PyTree]:
    """`fetch` of each of the outputs, one late: the device has the next to work on before this one is waited for."""
    waiting: list[PyTree] = []
    for one in outputs:
        waiting.append(one)
        if len(waiting) > 1:
            yield fetch(waiting.pop(0))
    yield from map(fetch, waiting)
