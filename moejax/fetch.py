"""Results on the host: the one place where a loop waits for the device."""

from collections.abc import Iterable, Iterator

import jax

from moejax.types import PyTree


def fetch(outputs: PyTree) -> PyTree:
    """What jitted steps gave, its leaves as numpy arrays, all in one transfer; leaves of the host stay as they are.

    Loops of training and evaluation read results in no other way: a `float(loss)` between two steps would keep the
    device idle until the host has sent the next. Checkpoints alone are read by orbax, which knows shards.
    """
    return jax.device_get(outputs)


def behind(outputs: Iterable[PyTree]) -> Iterator[PyTree]:
    """`fetch` of each of the outputs, one late: the device has the next to work on before this one is waited for."""
    waiting: list[PyTree] = []
    for one in outputs:
        waiting.append(one)
        if len(waiting) > 1:
            yield fetch(waiting.pop(0))
    yield from map(fetch, waiting)
