"""One training step: differentiate the score that evaluation uses, with respect to a sub-tree of the arrays."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from moejax.adapted import Adapted
from moejax.loss import row_loss
from moejax.parallel.rules import APART, RULES, kept, placed
from moejax.train.optimiser import Optimiser, transformation
from moejax.train.overlay import overlay
from moejax.types import Batch, PRNGKey, PyTree, UserError

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


def masters(trainable: PyTree) -> PyTree:
    """Copies of what is trained, float32 in whatever the base computes: a state is donated, what it began as is not.

    Raises UserError for integers: a quantised base is frozen.
    """
    for path, leaf in jax.tree.leaves_with_path(trainable):
        if not jnp.issubdtype(dtype := jnp.result_type(leaf), jnp.floating):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise UserError(f"{name} is {dtype} and cannot be trained: leave out base.quantise")
    return jax.tree.map(lambda leaf: jnp.array(leaf, jnp.float32), trainable)


def check_parts(optimiser: Optimiser, rows: int) -> None:
    """Raise UserError unless a batch of so many rows divides into the parts of `optimiser.accumulate`."""
    if rows % optimiser.accumulate:
        raise UserError(
            f"optimiser.accumulate is {optimiser.accumulate}, but a batch of {rows} rows does not divide into so many "
            "parts: give a divisor of it"
        )


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
    Accumulated: a part of the batch counts by its share of the real rows (together: of each expert's), so that means
    over rows are those of the whole batch; what else an objective computes is of each part.
    """
    experts = jax.tree.leaves(state.trainable)[0].shape[1] if together else 0
    whole = jnp.maximum(_count(batch, experts), 1.0)

    def loss(trainable, part, key):
        rows, records = losses(adapted, overlay(arrays, trainable), part, key=key, record=record)
        each = _by_expert(rows, part, experts) if together else objective(rows, records, part)
        if optimiser.accumulate > 1:
            each = each * _count(part, experts) / whole
        return jnp.sum(each), each

    gradient = jax.grad(loss, has_aux=True)
    if optimiser.accumulate > 1:
        gradients, each = _accumulated(gradient, state.trainable, batch, key, optimiser.accumulate)
    else:
        gradients, each = gradient(state.trainable, batch, key)
    update = transformation(optimiser).update
    if together:
        update = jax.vmap(update, in_axes=(1, 0, 1), out_axes=(1, 0))
    changes, moments = update(gradients, state.moments, state.trainable)
    moments = kept(moments, rules=APART if together else RULES)
    return State(kept(optax.apply_updates(state.trainable, changes)), moments, state.step + 1), each


def _accumulated(gradient: Callable, trainable: PyTree, batch: Batch, key: PRNGKey | None, parts: int) -> Any:
    """The sum of `gradient(trainable, part, key)` over parts of the batch, of which one is in memory at a time.

    A part takes every so many-th row: of each expert as many, and of each device's rows its own.
    """
    cut = jax.tree.map(lambda leaf: jnp.swapaxes(leaf.reshape(-1, parts, *leaf.shape[1:]), 0, 1), batch)

    def of(part: Batch, number: Int[Array, ""]) -> Any:
        return gradient(trainable, part, None if key is None else jax.random.fold_in(key, number))

    def add(total: Any, one: tuple[Batch, Int[Array, ""]]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, of(*one)), None

    numbers = jnp.arange(parts)
    shapes = jax.eval_shape(of, jax.tree.map(lambda leaf: leaf[0], cut), numbers[0])
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.lax.scan(add, nothing, (cut, numbers))[0]


def _count(batch: Batch, experts: int) -> Float[Array, "..."]:
    """Number of real rows, of each expert where there are some."""
    weight = jnp.ones(batch.tokens.shape[0]) if batch.weight is None else batch.weight
    return jax.ops.segment_sum(weight, batch.expert, experts) if experts else jnp.sum(weight)


def _by_expert(rows: Float[Array, "b"], batch: Batch, experts: int) -> Float[Array, "e"]:
    weight = jnp.ones_like(rows) if batch.weight is None else batch.weight
    total = jax.ops.segment_sum(rows * weight, batch.expert, experts)
    return total / jnp.maximum(_count(batch, experts), 1.0)
