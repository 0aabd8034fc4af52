"""The compiled program that answers test rows, and what it costs beside the bare base's."""

import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from moejax.adapted import Adapted, score
from moejax.contract import Rows
from moejax.fetch import fetch
from moejax.paged import for_batch
from moejax.parallel.spread import everywhere
from moejax.train.rows import batches
from moejax.types import Batch, PyTree


def _best(arrays: PyTree, batch: Batch, *, adapted: Adapted) -> Int[Array, "b"]:
    return jnp.argmax(score(adapted, arrays, batch)[0], axis=1)


best = jax.jit(_best, static_argnames="adapted")
"""Position of the best choice of each row; compiled once for each (adapted, shapes)."""


def answers(adapted: Adapted, arrays: PyTree, rows: Rows, size: int) -> Int[np.ndarray, "n"]:
    """The best choice of every row; batches are sent to the device ahead of their results being read."""
    found = [
        (best(for_batch(arrays, batch), batch, adapted=adapted), real) for batch, real in batches(rows, size)
    ]
    return np.concatenate([part[:real] for part, real in fetch(found)])


class Cost(NamedTuple):
    """Of one batch: seconds, and bytes beyond the arguments, both beside the bare base's."""

    time: float
    memory: float


def cost(
    adapted: Adapted, arrays: PyTree, bare: Adapted, bare_arrays: PyTree, batch: Batch, rounds: int = 2
) -> Cost:
    """Ratios to the bare base on one batch: of the best times of interleaved rounds, and of temporary memory."""
    arrays, bare_arrays, batch = (everywhere(tree) for tree in (arrays, bare_arrays, batch))
    programs = [_compiled(adapted, arrays, batch), _compiled(bare, bare_arrays, batch)]
    calls: Sequence[Callable] = [
        lambda p=p, a=a: jax.block_until_ready(p(a, batch))
        for p, a in zip(programs, (arrays, bare_arrays), strict=True)
    ]
    mine, theirs = np.min([[_timed(call) for call in calls] for _ in range(rounds)], axis=0)
    memory = [_temporary(program) for program in programs]
    return Cost(float(mine / theirs), memory[0] / max(memory[1], 1))


def _compiled(adapted: Adapted, arrays: PyTree, batch: Batch) -> jax.stages.Compiled:
    leaves, tree = jax.tree.flatten((arrays, batch))
    return _program(adapted, tree, tuple(map(_shape, leaves)))


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    """Shape and dtype of a leaf, and where it lies when it is spread over a mesh."""
    where = leaf.sharding if isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) > 1 else None
    return jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf), sharding=where)


@cache
def _program(adapted: Adapted, tree: Any, shapes: tuple) -> jax.stages.Compiled:
    """One program for each (adapted, shapes): the bare base's serves the whole table."""
    given = jax.tree.unflatten(tree, shapes)
    return best.lower(*given, adapted=adapted).compile()


def _temporary(program: jax.stages.Compiled) -> int:
    """Bytes that the program needs beside its arguments and results; 0 where the backend does not say."""
    found = program.memory_analysis()
    return 0 if found is None else found.temp_size_in_bytes


def _timed(call: Callable) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
