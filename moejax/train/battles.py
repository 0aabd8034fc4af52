"""Battles between members over queries, from graded answers, and the factorised model that learns who wins.

Training: the winner first, the label always 1, BCE of sigma(lead(winner, loser, query)); ties teach nothing. Gaussian
noise on the query; Adam with L2 decay, as torch has it; after each epoch the accuracy on other battles, without noise,
and the best epoch is kept. Source: Ong et al. 2024 (2406.18665) and its released code, which keeps the last epoch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from moejax.fetch import fetch
from moejax.routing.bradley_terry import ratings, tiers
from moejax.routing.preference import lead
from moejax.routing.scores import unit
from moejax.train.rows import seed_of
from moejax.types import PRNGKey, PyTree

PUBLISHED = 1536  # numbers of the vectors that the published noise was for


@dataclass(frozen=True)
class Plan:
    """How the factorised model is made and trained."""

    width: int
    noise: float
    epochs: int
    rate: float
    batch: int
    decay: float


class Battles(NamedTuple):
    """Who won against whom on which row; ties are not real. Padded: as many as rows times pairs, whatever was tied."""

    row: Int[np.ndarray, "n"]
    winner: Int[np.ndarray, "n"]
    loser: Int[np.ndarray, "n"]
    real: Bool[np.ndarray, "n"]


def fought(grades: Float[np.ndarray, "n m"], pairs: Sequence[tuple[int, int]]) -> Battles:
    """The battles of these pairs of columns on every row: the better grade wins, equal ones tie."""
    row, number = (
        x.ravel() for x in np.meshgrid(np.arange(len(grades)), np.arange(len(pairs)), indexing="ij")
    )
    one, other = np.array(pairs)[number].T
    first = grades[row, one] > grades[row, other]
    return Battles(
        row, np.where(first, one, other), np.where(first, other, one), grades[row, one] != grades[row, other]
    )


def won(
    grades: Float[np.ndarray, "n m"], tiers: Int[np.ndarray, "m"], pairs: Sequence[tuple[int, int]]
) -> Float[np.ndarray, "n t t"]:
    """[a, b] of a row: how often one of tier a beat one of tier b there, of these pairs; a tie is half a win for each.

    Battles within a tier say nothing and are left out.
    """
    count = int(tiers.max()) + 1
    found = np.zeros((len(grades), count, count), np.float32)
    for one, other in pairs:
        if tiers[one] != tiers[other]:
            share = 0.5 * (1.0 + np.sign(grades[:, one] - grades[:, other]))
            found[:, tiers[one], tiers[other]] += share
            found[:, tiers[other], tiers[one]] += 1.0 - share
    return found


def fresh(names: Sequence[str], width: int, numbers: int, seed: int) -> dict[str, Array]:
    """Before training: members ~ N(0, 1), each drawn by its name; the rest uniform in ± 1 / sqrt(inputs), as torch."""
    rng = np.random.default_rng(seed_of("factorised", seed))
    members = [np.random.default_rng(seed_of(name, seed)).normal(size=width) for name in names]
    project, classify = (
        rng.uniform(-1, 1, size) / np.sqrt(size[-1]) for size in ((width, numbers), (width,))
    )
    leaves = {"members": np.stack(members), "project": project, "classify": classify}
    return {name: jnp.asarray(leaf, jnp.float32) for name, leaf in leaves.items()}


def epochs(
    real: Bool[np.ndarray, "n"], count: int, batch: int, seed: int
) -> Int[np.ndarray, "count steps batch"]:
    """Batches of real battles, each epoch in an order of its own; -1 fills the rest."""
    rng, steps = np.random.default_rng(seed_of("epochs", seed)), -(-len(real) // batch)
    found, there = np.full((count, steps * batch), -1, np.int32), np.flatnonzero(real)
    for line in found:
        line[: len(there)] = rng.permutation(there)
    return found.reshape(count, steps, batch)


def spread(noise: float, v: Float[np.ndarray, "n q"]) -> float:
    """Noise of each number, in the ratio to a query's length that `noise` was published for: unit vectors of 1536."""
    length = float(np.mean(np.linalg.norm(v, axis=-1)))
    return noise * length * float(np.sqrt(PUBLISHED / v.shape[-1]))


def factorise(
    plan: Plan,
    names: Sequence[str],
    taught: tuple[Float[np.ndarray, "n q"], Battles],
    checked: tuple[Float[np.ndarray, "o q"], Battles],
    work: Any,
) -> dict[str, Array]:
    """The trained model of members with these names, computed once; loss and accuracy of each epoch are logged."""

    def make() -> PyTree:
        (v, battles), (others, known) = taught, checked
        start = fresh(names, plan.width, v.shape[1], work.seed)
        turns = epochs(battles.real, plan.epochs, plan.batch, work.seed)
        settings = {"rate": plan.rate, "decay": plan.decay, "noise": spread(plan.noise, v)}
        model, said = descend(
            start, jnp.asarray(v), battles, jnp.asarray(turns), jnp.asarray(others), known, settings,
            work.key("noise"),
        )  # fmt: skip
        for epoch, (loss, right) in enumerate(fetch(said).tolist()):
            work.log({"loop": "epochs", "step": epoch, "loss": loss, "accuracy": right})
        return model

    return jax.tree.map(jnp.asarray, work.memo("factorised", make))


def ranking(
    v: Float[np.ndarray, "n q"], grades: Float[np.ndarray, "n m"], pairs: Sequence[tuple[int, int]], most: int
) -> dict[str, Any]:
    """What `preference.ranked` needs of all queries: their battles by tier, tiers by the ratings of all battles."""
    each = np.arange(grades.shape[1])
    theta = ratings(jnp.asarray(won(grades, each, pairs).sum(axis=0)))
    theta, queries = fetch((theta, unit(jnp.asarray(v))))
    rank = tiers(theta, most)
    return {"queries": queries, "wins": won(grades, rank, pairs), "tiers": rank}


@jax.jit
def descend(
    model: PyTree,
    queries: Float[Array, "n q"],
    battles: Battles,
    turns: Int[Array, "epochs steps batch"],
    others: Float[Array, "o q"],
    checked: Battles,
    settings: dict[str, float | Float[Array, ""]],
    key: PRNGKey,
) -> tuple[PyTree, Float[Array, "epochs 2"]]:
    """The model after its best epoch (the first of equals), and of each epoch the loss and the accuracy on `checked`.

    settings: rate, decay, and the noise of each number of a query.
    """
    adam = optax.chain(
        optax.add_decayed_weights(settings["decay"]), optax.scale_by_adam(), optax.scale(-settings["rate"])
    )

    def move(model, moments, batch, key):
        index, real = jnp.maximum(batch, 0), batch >= 0
        v = queries[battles.row[index]]
        v = v + settings["noise"] * jax.random.normal(key, v.shape)

        def loss(model):
            said = jax.nn.softplus(-lead(model, battles.winner[index], battles.loser[index], v))
            return jnp.sum(said * real) / jnp.maximum(jnp.sum(real), 1)

        value, gradient = jax.value_and_grad(loss)(model)
        change, moments = adam.update(gradient, moments, model)
        return optax.apply_updates(model, change), moments, value * jnp.sum(real)

    def stay(model, moments, batch, key):
        return model, moments, jnp.zeros(())

    def step(state, batch):
        model, moments, key = state
        key, own = jax.random.split(key)
        some = jnp.any(batch >= 0)  # the last batches of an epoch are empty where there were ties
        model, moments, value = jax.lax.cond(some, move, stay, model, moments, batch, own)
        return (model, moments, key), (value, jnp.sum(batch >= 0))

    def epoch(state, batches):
        state, best, most = state[0], *state[1:]
        state, (losses, counts) = jax.lax.scan(step, state, batches)
        right = lead(state[0], checked.winner, checked.loser, others[checked.row]) > 0
        accuracy = jnp.sum(right * checked.real) / jnp.maximum(jnp.sum(checked.real), 1)
        best = jax.tree.map(lambda new, old: jnp.where(accuracy > most, new, old), state[0], best)
        said = jnp.stack([jnp.sum(losses) / jnp.maximum(jnp.sum(counts), 1), accuracy])
        return (state, best, jnp.maximum(most, accuracy)), said

    start = ((model, adam.init(model), key), model, jnp.float32(-1))
    (_, best, _), said = jax.lax.scan(epoch, start, turns)
    return best, said
