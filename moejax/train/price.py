"""What a request costs each member of a pool, the bare base 1."""

from collections.abc import Iterator, Mapping
from math import isfinite, prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from moejax.adapted import Adapted, run
from moejax.experts.pool import Pool
from moejax.models.base import Base
from moejax.train.outcomes import alone, arrays
from moejax.types import Batch, PyTree, UserError


def prices(base: Base, pool: Pool, tokens: int) -> Float[np.ndarray, "m"]:
    """The `price` in an expert's moejax.json, else the operations of a forward of so many tokens, the base's being 1.

    Raises UserError for a price that is no positive number.
    """
    bare = operations(Adapted(base.model), base, pool, tokens)
    adapted, merged = (operations(alone(base, m), base, pool, tokens) / bare for m in (0, -2))
    beside = base.beside and [operations(Adapted(base.beside.model), base.beside, pool, tokens) / bare]
    each = (_said(*one, adapted) for one in zip(pool.names, pool.infos, strict=True))
    return np.array([1.0, *each, *(beside or []), merged])


def _said(name: str, info: Mapping[str, Any], measured: float) -> float:
    price = info.get("price")
    if price is None:
        return measured
    if isinstance(price, bool) or not isinstance(price, int | float) or not (isfinite(price) and price > 0):
        raise UserError(
            f"expert {name!r}: price in its moejax.json is {price!r}; expected a number above 0, the base's is 1"
        )
    return float(price)


def share_of(cost: float, strong: float, weak: float) -> float:
    """The share of requests that may go to a strong member when a request costs this in the mean.

    Raises UserError for a cost that lies outside of the two members' prices.
    """
    if strong == weak or not min(strong, weak) <= cost <= max(strong, weak):
        raise UserError(
            f"cost is {cost:g}, but a request costs {weak:.4g} by the weak member and {strong:.4g} by the strong one: "
            "give one between, or a share"
        )
    return float((cost - weak) / (strong - weak))


def operations(adapted: Adapted, base: Base, pool: Pool, tokens: int) -> float:
    """Multiplications and additions of the matrix products in one forward through all layers of the base.

    They are counted in the traced program, loops as often as they run; no number is computed.
    """
    whole = arrays(base, pool, 0) | {"params": _all_layers(base)}
    shape = jax.ShapeDtypeStruct((1, tokens), jnp.bool_)
    batch = Batch(jax.ShapeDtypeStruct((1, tokens), jnp.int32), shape, shape)
    found: Any = jax.make_jaxpr(lambda a, b: run(adapted, a, b).hidden)(whole, batch)
    return _products(found.jaxpr)


def _all_layers(base: Base) -> PyTree:
    """Shapes of the parameters of the whole base, where those of its upper layers are given."""
    if base.kind == "seq2seq":  # is always whole
        return base.params

    def shape(path: tuple[Any, ...], leaf: Any) -> jax.ShapeDtypeStruct:
        stacked = any(getattr(key, "key", None) == "layers" for key in path)
        return jax.ShapeDtypeStruct((base.layers, *leaf.shape[1:]) if stacked else leaf.shape, leaf.dtype)

    return jax.tree_util.tree_map_with_path(shape, base.params)


def _products(jaxpr: Any) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        name, given = equation.primitive.name, equation.params
        if name == "dot_general":
            (summed, _), _ = given["dimension_numbers"]
            inner = prod(equation.invars[0].aval.shape[axis] for axis in summed)
            total += 2.0 * inner * prod(equation.outvars[0].aval.shape)
        parts = [_products(part) for part in _inner(given)]
        if name == "cond":
            total += max(parts)
        else:
            total += given.get("length", 1) * sum(parts)
    return total


def _inner(given: Mapping[str, Any]) -> Iterator[Any]:
    """The programs within an equation: bodies of loops, branches, functions that it calls."""
    for value in given.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            if hasattr(one, "eqns"):
                yield one
            elif hasattr(one, "jaxpr"):
                yield one.jaxpr
