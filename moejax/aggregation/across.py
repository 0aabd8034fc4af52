"""Experts that lie on several devices: at a routed place their rows meet all of them, and go back summed.

Outside routed places the rows of a batch are split over (data, expert). Here each device gathers the rows of its
`expert` group, mixes the experts that it holds, and the sums are scattered back to the rows' own devices. The bank
never moves. Where each device has all experts it mixes its own rows, and nothing moves: left to the compiler, tokens
that are ordered by expert would be gathered from all devices.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from moejax.parallel.mesh import ROWS, split
from moejax.parallel.rowwise import rowwise
from moejax.types import Weights

Mix = Callable[..., Float[Array, "b t f"]]
Total = Callable[[Array], Array]
EXPERT = "expert"


def across(
    mix: Mix, x: Float[Array, "b t d"], stack: Any, slot: Int[Array, ""], weights: Weights
) -> Float[Array, "b t f"]:
    """`mix(x, stack, slot, weights, total)` over the experts of all devices of the mesh that is set, if one is.

    A bank that the axis does not divide lies on every device, and mixes the rows that are there: stack it with the mesh
    set. mix must be a sum over experts; `total` sums what it makes of its own experts before it goes on.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.shape[EXPERT] == 1 or stack.scale.shape[1] % mesh.shape[EXPERT]:
        return rowwise(partial(_alone, mix), (x, weights), (stack, slot))
    rows = P(ROWS) if x.shape[0] % split(mesh) == 0 else P()
    body = _body(mix, mesh, rows != P())
    held = type(stack)(*(P() if name == "slot" else P(None, EXPERT) for name in stack._fields))
    held = held._replace(**{name: None for name in stack._fields if getattr(stack, name) is None})
    worn = jax.tree.map(lambda leaf: rows if leaf.ndim > 1 else P(), weights)
    specs = (rows, held, P(), worn)
    return jax.shard_map(body, mesh=mesh, in_specs=specs, out_specs=rows, check_vma=False)(
        x, stack, slot, weights
    )


def _alone(mix: Mix, own: tuple[Array, Weights], whole: tuple[Any, Array]) -> Array:
    """All experts are here: there is nothing to sum."""
    (x, weights), (stack, slot) = own, whole
    return mix(x, stack, slot, weights, lambda part: part)


def _body(mix: Mix, mesh: AbstractMesh, gathered: bool) -> Mix:
    def body(x, stack, slot, weights):
        if gathered:
            x, weights = jax.tree.map(
                lambda leaf: leaf if leaf.ndim == 1 else jax.lax.all_gather(leaf, EXPERT, tiled=True),
                (x, weights),
            )
        y = mix(x, stack, slot, own(weights, stack.scale.shape[1]), lambda part: jax.lax.psum(part, EXPERT))
        return jax.lax.psum_scatter(y, EXPERT, tiled=True) if gathered else jax.lax.psum(y, EXPERT)

    return body


def own(weights: Weights, held: int) -> Weights:
    """The weights of the experts that this device holds, counted from its first; another's index is `held`."""
    first = jax.lax.axis_index(EXPERT) * held
    if weights.index is None:
        return Weights(jax.lax.dynamic_slice_in_dim(weights.values, first, held, axis=-1))
    index = weights.index - first
    mine = (index >= 0) & (index < held)
    return Weights(jnp.where(mine, weights.values, 0.0), jnp.where(mine, index, held))
