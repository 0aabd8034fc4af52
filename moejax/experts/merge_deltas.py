"""Differences merged into the base's parameters once, on the host: theta_0 + sum_e w_e tau_e."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from moejax.experts.bank import Bank
from moejax.experts.stacks import Deltas
from moejax.types import PyTree, UserError

Rest = Mapping[
    str, Mapping[str, np.ndarray]
]  # expert -> path of a parameter outside the layers -> its difference
WEIGHT = {True: "kernel", False: "scale"}  # whether it is a linear's or a norm's


def task_vector(
    bank: Bank,
    rest: Rest,
    names: Sequence[str],
    weights: Float[np.ndarray, "e"],
    layers: int,
    where: Callable[[str], bool] = lambda path: True,
) -> dict[str, np.ndarray]:
    """path of a parameter -> sum_e w_e tau_e, of the sites that `where` takes ([layers, …]) and of all of rest."""
    weights = np.asarray(weights, np.float32) * np.asarray(bank.alive)
    found: dict[str, np.ndarray] = {}
    for path, stack in bank.sites.items():
        if isinstance(stack, Deltas) and where(path):
            found |= dict(_of_site(path, stack, weights, layers))
    for name, w in zip(names, weights, strict=False):
        for path, change in rest.get(name, {}).items():
            found[path] = found.get(path, np.float32(0)) + w * change
    return found


def _of_site(path: str, stack: Deltas, weights: np.ndarray, layers: int) -> Iterator[tuple[str, np.ndarray]]:
    """The summed weight and bias of one path, zero in layers that nobody changed."""
    w, bias, scale, slot = (np.asarray(leaf) for leaf in (stack.w, stack.bias, stack.scale, stack.slot))
    used = slot >= 0
    for name, leaf in (("weight", w), ("bias", bias)):
        whole = np.zeros((layers, *leaf.shape[2:]), np.float32)
        whole[used] = np.einsum("e,se,se...->s...", weights, scale, leaf)[slot[used]]
        yield f"{path}/{name}", whole


def patched(params: PyTree, vector: Mapping[str, np.ndarray]) -> PyTree:
    """The parameters with a task vector added; where upper layers alone are given, their part of it.

    Raises KeyError for a parameter that is not there, unless the vector is zero there: a base without biases; and
    UserError for a quantised base.
    """
    for path, change in vector.items():
        *way, last = path.split("/")
        params = _at(params, way, last, change)
    return params


def _at(node: Any, way: Sequence[str], last: str, change: np.ndarray) -> Any:
    if way:
        return {**node, way[0]: _at(node[way[0]], way[1:], last, change)}
    if last == "weight":
        last = WEIGHT["kernel" in node]
    if last not in node and not change.any():
        return node
    if hasattr(node[last], "qvalue"):
        raise UserError("differences are added to numbers, not to a quantised base: leave out base.quantise")
    leaf = np.asarray(node[last])
    shifted = change[len(change) - len(leaf) :].reshape(leaf.shape)  # the layers that are given
    return {**node, last: jnp.asarray((leaf.astype(np.float32) + shifted).astype(leaf.dtype))}
