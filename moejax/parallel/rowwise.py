"""What is of each row alone, done by each device on its own rows: the compiler would gather some of it from all."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import PartitionSpec as P

from moejax.parallel.mesh import ROWS, split
from moejax.types import PyTree


def rowwise(do: Callable[[Any, Any], PyTree], own: PyTree, whole: PyTree = ()) -> PyTree:
    """`do(own, whole)`: leaves [b, …] of `own` split by rows over the mesh that is set, `whole` on every device.

    Results are [b, …]. Leaves of one axis have no rows and are whole too. Without a mesh, or where the rows of the
    first leaf do not divide, all is done at once.
    """
    mesh, first = jax.sharding.get_abstract_mesh(), jax.tree.leaves(own)[0]
    if mesh.empty or split(mesh) == 1 or first.ndim < 2 or first.shape[0] % split(mesh):
        return do(own, whole)
    rows = jax.tree.map(lambda leaf: P(ROWS) if leaf.ndim > 1 else P(), own)
    apart = jax.shard_map(do, mesh=mesh, in_specs=(rows, P()), out_specs=P(ROWS), check_vma=False)
    return apart(own, whole)
