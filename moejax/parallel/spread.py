"""Arrays over the devices of all processes: each process reads the rows of a batch that its own devices hold.

One global row counter is the whole state of a stream: step s of batches of b rows has the rows s b to (s + 1) b - 1,
whatever the number of processes, which may change from one run to the next.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Int

from moejax.parallel import hosts
from moejax.types import Batch, PyTree

Read = Callable[[Int[np.ndarray, "n"]], Batch]  # the rows of one batch that have these numbers in it


def mesh() -> Mesh:
    """The mesh that `jax.set_mesh` has set; else one axis, `data`, over all devices."""
    ambient = jax.sharding.get_mesh()
    return Mesh(np.array(jax.devices()), ("data",)) if ambient.empty else ambient


def by_rows() -> NamedSharding | None:
    """Rows over every axis of the mesh but `model`, whose devices share the same rows; None with one process."""
    if hosts.count() == 1:
        return None
    over = mesh()
    return NamedSharding(over, P(tuple(axis for axis in over.axis_names if axis != "model")))


def replicated() -> NamedSharding | None:
    """Whole on every device of the mesh; None with one process."""
    return None if hosts.count() == 1 else NamedSharding(mesh(), P())


def rows_of(sharding: NamedSharding, size: int) -> Int[np.ndarray, "n"]:
    """Numbers of the rows of a batch of `size` that lie on this process's devices, in order, each once."""
    parts = sharding.addressable_devices_indices_map((size,)).values()
    return np.unique(np.concatenate([np.arange(size)[part] for part in parts]))


def spread(read: Read, size: int, sharding: NamedSharding | None) -> Batch:
    """A batch of `size` rows over all devices, as `by_rows` says; `read` is asked for this process's rows alone.

    With one process, and where `size` is no multiple of the parts, `read` is asked for all of them.
    """
    if sharding is None or size % _parts(sharding):
        return read(np.arange(size))
    own = rows_of(sharding, size)

    def whole(leaf: np.ndarray) -> jax.Array:
        def part(index: Any) -> np.ndarray:
            return leaf[np.searchsorted(own, np.arange(size)[index[0]])]

        return jax.make_array_from_callback((size, *leaf.shape[1:]), sharding, part)

    return jax.tree.map(whole, read(own))


def _parts(sharding: NamedSharding) -> int:
    devices = sharding.num_devices
    return devices // sharding.shard_shape((devices,))[0]


def everywhere(tree: PyTree) -> PyTree:
    """The tree with every array whole on every device; those that lie over several processes stay where they are."""
    where = replicated()
    if where is None:
        return tree

    def placed(leaf: jax.Array | np.ndarray) -> jax.Array:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return leaf
        return put(np.asarray(leaf), where)

    return jax.tree.map(placed, tree)


def put(values: np.ndarray, where: jax.sharding.Sharding | None) -> jax.Array:
    """An array that each process holds whole, onto devices of all: each takes the parts that are its own."""
    if where is None or where.is_fully_addressable:
        return jax.device_put(values, where)
    return jax.make_array_from_callback(values.shape, where, lambda index: values[index])
