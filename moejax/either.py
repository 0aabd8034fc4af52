"""Two whole models, of which each request uses one: the base with its places, or a second model beside it.

What a request is answered by is decided once, from the request alone. A batch whose requests all use one model runs
that model only; in a mixed batch both run, and each row takes its own. Two caches, one a model, in one loop.
`arrays["beside"]` holds the second model's parameters, `arrays["beside_labels"]` its label vectors.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from moejax import adapted as one
from moejax.adapted import Adapted
from moejax.types import Batch, PyTree


class Both(NamedTuple):
    """What decoding carries: the states of both models, and which rows the second one answers."""

    first: one.State
    second: one.State
    beside: Bool[Array, "b"]


@dataclass(frozen=True)
class Either:
    """How an `Adapted` with a second model answers; beside(arrays, batch) says which requests are for the second."""

    second: Adapted
    beside: Callable[[PyTree, Batch], Bool[Array, "b"]]

    def score(
        self, adapted: Adapted, arrays: PyTree, batch: Batch, **options: Any
    ) -> tuple[Float[Array, "b c_or_t"], PyTree]:
        """Scores of the model that each request uses, and the records of the first."""
        beside, records = self.beside(arrays, batch), {}

        def first() -> Float[Array, "b c_or_t"]:
            return one.score(alone(adapted), arrays, batch, **options)[0]

        def second() -> Float[Array, "b c_or_t"]:
            return one.score(self.second, other(arrays), batch._replace(prefix=None))[0]

        if options.get("record"):
            mine, records = one.score(alone(adapted), arrays, batch, **options)
        else:
            mine = _unless(jnp.all(beside), first)
        return jnp.where(beside[:, None], _unless(~jnp.any(beside), second), mine), records

    def start(
        self, adapted: Adapted, arrays: PyTree, batch: Batch, room: int
    ) -> tuple[Float[Array, "b v"], Both]:
        """Prefill of both models: each row's logits by its own."""
        beside = self.beside(arrays, batch)
        mine, first = one.start(alone(adapted), arrays, batch, room)
        found, second = one.start(self.second, other(arrays), batch._replace(prefix=None), room)
        return jnp.where(beside[:, None], found, mine), Both(first, second, beside)

    def step(
        self, adapted: Adapted, arrays: PyTree, token: Int[Array, "b"], state: Both
    ) -> tuple[Float[Array, "b v"], Both]:
        """One more token; a model that answers no row of the batch is not run, and its cache is left as it is."""

        mine, first = _unless(
            jnp.all(state.beside), lambda: one.step(alone(adapted), arrays, token, state.first), state.first
        )
        found, second = _unless(
            ~jnp.any(state.beside),
            lambda: one.step(self.second, other(arrays), token, state.second),
            state.second,
        )
        return jnp.where(state.beside[:, None], found, mine), Both(first, second, state.beside)


def alone(adapted: Adapted) -> Adapted:
    """The first model without the second."""
    return replace(adapted, either=None)


def other(arrays: PyTree) -> PyTree:
    """The arrays of the second model."""
    return {**arrays, "params": arrays["beside"], "labels": arrays.get("beside_labels")}


def _unless(idle: Bool[Array, ""], make: Callable[[], Any], kept: Any = None) -> Any:
    """What `make` gives; where `idle`, zeros in its place, and of a pair (zeros, kept)."""
    shapes = jax.eval_shape(make)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.lax.cond(idle, lambda: zeros if kept is None else (zeros[0], kept), make)
