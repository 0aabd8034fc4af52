"""One training step: differentiate the score that evaluation uses, with respect to a sub-tree of the arrays."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from moejax.adapted import Adapted
from moejax.loss import row_loss
from moejax.parallel.rules import APART, RULES, kept, placed
from moejax.train.optimiser import Optimiser, transformation
from moejax.train.overlay import overlay
from moejax.types import Batch, PRNGKey, PyTree

Losses = Callable[..., tuple[Float[Array, "b"], PyTree]]  # as row_loss: what a row's loss is
Objective = Callable[[Float[Array, "b"], PyTree, Batch], Float[Array, "..."]]


class State(NamedTuple):
    """Everything that a step changes; saved whole, so that a resumed run ends in the same numbers."""

    trainable: PyTree
    moments: PyTree
    step: Int[Array, ""]


def mean(rows: Float[Array, "b"], records: PyTree, batch: Batch) -> Float[Array, ""]:
    """Mean loss of the real rows."""
    weight = jnp.ones_like(rows) if batch.weight is None else batch.weight
    return jnp.sum(rows * weight) / jnp.maximum(jnp.sum(weight), 1.0)


def begin(trainable: PyTree, optimiser: Optimiser, together: bool = False) -> State:
    """The state before the first step; `together`: leaves [s, e, …] hold one independent model an expert."""
    make = transformation(optimiser).init
    moments = jax.vmap(make, in_axes=1, out_axes=0)(trainable) if together else make(trainable)
    return State(placed(trainable), placed(moments, rules=APART if together else RULES), jnp.int32(0))


@partial(
    jax.jit,
    static_argnames=("adapted", "optimiser", "objective", "together", "record", "losses"),
    donate_argnames=("state",),
)
def train_step(
    state: State,
    arrays: PyTree,
    batch: Batch,
    key: PRNGKey | None,
    *,
    adapted: Adapted,
    optimiser: Optimiser,
    objective: Objective = mean,
    together: bool = False,
    record: bool = False,
    losses: Losses = row_loss,
) -> tuple[State, Float[Array, "..."]]:
    """The state after one batch, and the loss (one an expert when `together`).

    Together: the loss is the sum over experts of the mean over their own rows, and the optimiser is mapped over
    the expert axis, so that moments, clipping and schedule are those of training each expert alone.
    """
    experts = jax.tree.leaves(state.trainable)[0].shape[1] if together else 0

    def loss(trainable):
        rows, records = losses(adapted, overlay(arrays, trainable), batch, key=key, record=record)
        each = _by_expert(rows, batch, experts) if together else objective(rows, records, batch)
        return jnp.sum(each), each

    gradients, each = jax.grad(loss, has_aux=True)(state.trainable)
    update = transformation(optimiser).update
    if together:
        update = jax.vmap(update, in_axes=(1, 0, 1), out_axes=(1, 0))
    changes, moments = update(gradients, state.moments, state.trainable)
    moments = kept(moments, rules=APART if together else RULES)
    return State(kept(optax.apply_updates(state.trainable, changes)), moments, state.step + 1), each


def _by_expert(rows: Float[Array, "b"], batch: Batch, experts: int) -> Float[Array, "e"]:
    weight = jnp.ones_like(rows) if batch.weight is None else batch.weight
    total = jax.ops.segment_sum(rows * weight, batch.expert, experts)
    count = jax.ops.segment_sum(weight, batch.expert, experts)
    return total / jnp.maximum(count, 1.0)
