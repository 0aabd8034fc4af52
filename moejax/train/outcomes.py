"""The outcomes matrix: members of a pool, each run alone on the same rows.

A member is a whole model, and has a number: the base under expert e is e, the base itself -1, the base under the
uniform merge of all experts -2, the model beside the base, where there is one, -3. In the matrix of all members number
m is column 1 + m, counted from the end where that is negative.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from moejax.adapted import Adapted, is_decoder, score
from moejax.contract import Pair, Rows
from moejax.experts.bank import on_device, size
from moejax.experts.merge_deltas import patched, task_vector
from moejax.experts.pool import Pool
from moejax.fetch import fetch
from moejax.models.base import Base
from moejax.paged import for_batch, paged
from moejax.places import EXPERTS, evenly, one_member
from moejax.train.accuracy import graded
from moejax.train.rows import batches
from moejax.types import Batch, PyTree, UserError

BASE, MERGED, BESIDE = "base", "uniform", "beside"


class Outcomes(NamedTuple):
    """choice: the best choice (-1: a decoder's answers are not chosen); right: 1 if it is the right one (decoder:
    likelihood of the answer); likelihood: its logarithm."""

    choice: Int[np.ndarray, "n m"]
    right: Float[np.ndarray, "n m"]
    likelihood: Float[np.ndarray, "n m"]


def members(base: Base, pool: Pool) -> dict[str, int]:
    """Name -> number of members, in the order of the columns. Raises UserError where an expert has another's name."""
    if taken := {BASE, MERGED, BESIDE} & set(pool.names):
        raise UserError(f"an expert is called {min(taken)!r}, as another member is: give it another name")
    beside = {BESIDE: -3} if base.beside else {}
    return {BASE: -1, **{name: e for e, name in enumerate(pool.names)}, **beside, MERGED: -2}


def alone(base: Base, member: int = 0) -> Adapted:
    """One member for every row. Which expert it is, or none, is an array, so that trying them all compiles once."""
    if member == -3:
        assert base.beside is not None
        return Adapted(base.beside.model)
    return Adapted(base.model, EXPERTS, route=evenly if member == -2 else one_member)


def arrays(base: Base, pool: Pool, member: int) -> dict[str, Any]:
    """What `alone` runs this member by."""
    if member == -3:
        assert base.beside is not None
        return {"params": base.beside.params, "bank": pool.bank, "router": {}, "labels": base.beside.labels}
    router = {"model": {"expert": jnp.int32(member)}, "places": {}, "knobs": {}}
    params = outside(base, pool, member) if pool.rest else base.params
    return {"params": params, "bank": on_device(pool.bank), "router": router, "labels": base.labels}


def outside(base: Base, pool: Pool, member: int) -> PyTree:
    """The base's parameters with what a member changes outside the layers, which no place can route."""
    if member == -1:
        return base.params
    weights = (
        np.full(size(pool.bank), 1 / len(pool.names)) if member == -2 else np.eye(size(pool.bank))[member]
    )
    vector = task_vector(pool.bank, pool.rest, pool.names, weights, base.layers, lambda path: False)
    return patched(base.params, vector)


def most_often_right(found: Outcomes, columns: Iterable[int]) -> int:
    """The column of these that is right most often; of equals the likelier one."""
    right, likelihood = found.right.mean(axis=0), found.likelihood.mean(axis=0)
    return max(columns, key=lambda m: (round(float(right[m]), 6), float(likelihood[m])))


def outcomes(
    base: Base, pool: Pool, rows: Rows, at_once: int, work: Any, numbers: Sequence[int] | None = None
) -> Outcomes:
    """The matrix of these rows and members (None: all), so many rows at once; computed once in a run."""
    ran = tuple(members(base, pool).values() if numbers is None else numbers)

    def make() -> dict[str, Any]:
        ready = replace(pool, bank=on_device(pool.bank))
        found = []
        for m in ran:  # a member at a time, so that an expert on disk is brought in once
            adapted, one = paged(alone(base, m), arrays(base, ready, m), pool)
            for batch, real in batches(rows, at_once):
                given = batch._replace(prefix=None) if m == -3 else batch
                found.append((_alone(for_batch(one, given), given, adapted=adapted), real))
        columns = np.concatenate([part[:, :real] for part, real in fetch(found)], axis=1)
        choice, right, likelihood = columns.reshape(3, len(ran), -1)
        return {"choice": choice.T.astype(np.int32), "right": right.T, "likelihood": likelihood.T}

    return Outcomes(**work.shared(f"outcomes-{_key(base, pool, rows, ran)}", make))


@partial(jax.jit, static_argnames="adapted")
def _alone(arrays: PyTree, batch: Batch, *, adapted: Adapted) -> Float[Array, "3 b"]:
    logp, _ = score(adapted, arrays, batch)
    choice = (
        -jnp.ones(len(logp)) if is_decoder(adapted.model) else jnp.argmax(logp, axis=1).astype(jnp.float32)
    )
    return jnp.concatenate([choice[None], graded(logp, batch)])


def _key(base: Base, pool: Pool, rows: Rows, ran: tuple[int, ...]) -> str:
    """A hash of all that the matrix depends on: the base, its label vectors, members, experts in their order, rows."""
    digest = hashlib.sha256(f"{base.identity if -3 in ran else base.fingerprint} {ran}".encode())
    for info in pool.infos:
        digest.update(str(info["hash"]).encode())
    batch = rows.take(np.arange(len(rows)))
    labels = None if base.labels is None else np.asarray(base.labels)
    others = base.beside.labels if base.beside and -3 in ran else None
    tokens = np.where(batch.mask, batch.tokens, 0)
    for leaf in (
        tokens,
        batch.mask,
        batch.prompt,
        batch.pool,
        batch.targets,
        batch.answer,
        batch.choices,
        labels,
        None if others is None else np.asarray(others),
    ):
        digest.update(
            b"-" if leaf is None else str(leaf.shape).encode() + np.ascontiguousarray(leaf).tobytes()
        )
    return digest.hexdigest()[:32]


def wanted(route: Pair, arrays: PyTree, rows: Rows, size: int) -> Float[np.ndarray, "n"]:
    """How much each row wants the strong member of a pair."""
    found = [(_wants(arrays, batch, route=route), real) for batch, real in batches(rows, size)]
    return np.concatenate([part[:real] for part, real in fetch(found)])


@partial(jax.jit, static_argnames="route")
def _wants(arrays: PyTree, batch: Batch, *, route: Pair) -> Float[Array, "b"]:
    return route.wants(arrays, batch)
