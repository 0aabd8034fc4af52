"""A pool that stays on disk: the route chooses first, what it chose is brought into slots, one program runs by them.

Only for methods whose route names a few experts for each request or task (`Method.few`). The route sees the whole
pool's small arrays (query vectors, means, who is alive); the program sees the slots' bank and slots for experts.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from moejax.adapted import Adapted
from moejax.contract import Method
from moejax.experts.pool import Pool
from moejax.experts.slots import Slots
from moejax.fetch import fetch
from moejax.types import Batch, NotApplicable, PyTree, Weights


def decided(arrays: PyTree, batch: Batch) -> Weights:
    """A route: the weights that were decided before the program began."""
    return arrays["decided"]


@dataclass(frozen=True, eq=False)
class Paged:
    """Arrays of a method whose bank has no factors, its route, and the slots that hold what the route names.

    names: the experts by number, as the route numbers them.
    """

    route: Any
    arrays: dict[str, Any]
    names: tuple[str, ...]
    slots: Slots

    def __getitem__(self, name: str) -> Any:
        """The arrays of this name as they are for the whole pool."""
        return self.arrays[name]

    def for_batch(self, batch: Batch) -> dict[str, Any]:
        """The arrays for one batch; they are good until the next batch's are made. Raises UserError as `bring` does."""
        weights = _choose(self.arrays, asked(batch), route=self.route)
        if weights.index is None:
            raise ValueError("a route that weighs all experts needs all of them in memory")
        values, index = fetch(weights)
        used = np.unique(index[values != 0])
        slot = np.zeros(
            self.arrays["bank"].alive.size, np.int32
        )  # what has no weight wears the first, with none
        slot[used] = self.slots.bring([self.names[e] for e in used])
        return self.arrays | {
            "bank": self.slots.bank,
            "decided": Weights(weights.values, jnp.asarray(slot[index])),
        }


@partial(jax.jit, static_argnames="route")
def _choose(arrays: PyTree, batch: Batch, *, route: Any) -> Weights:
    return route(arrays, batch)


def asked(batch: Batch) -> Batch:
    """The batch as a route sees it: without what is to be said."""
    return batch._replace(targets=None, answer=None, choices=None)


def paged(adapted: Adapted, arrays: dict[str, Any], pool: Pool) -> tuple[Adapted, PyTree]:
    """A method's program and arrays over a pool: as they are, or by slots where the pool stays on disk."""
    if pool.slots is None or adapted.route is None:
        return adapted, arrays
    return replace(adapted, route=decided), Paged(adapted.route, arrays, pool.names, pool.slots)


def for_batch(arrays: PyTree, batch: Batch) -> PyTree:
    """The arrays by which a program runs this batch."""
    return arrays.for_batch(batch) if isinstance(arrays, Paged) else arrays


def of_all(arrays: PyTree, values: Float[Array, "*n s"]) -> Float[Array, "*n e"]:
    """Values by slot, of the batch that ran last, by the experts of the whole pool; zero for those not in a slot."""
    if not isinstance(arrays, Paged):
        return values
    number, e = {name: i for i, name in enumerate(arrays.names)}, arrays["bank"].alive.size
    at = np.array([number.get(name, e) for name in arrays.slots.names])  # a free slot's is out of range
    return jnp.zeros((*values.shape[:-1], e)).at[..., at].set(values, mode="drop")


def check(label: str, method: Method) -> None:
    """Raise NotApplicable for a method that cannot be used while the pool stays on disk."""
    if not method.few:
        raise NotApplicable(
            f"{label} weighs all experts of the pool, and pool_slots leaves them on disk: leave pool_slots out, or "
            f"leave {label} out"
        )
