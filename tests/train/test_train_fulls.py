"""Experts fine-tuned in full: every parameter of their layers moves, by the plain gradient of the model's own score."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from moejax.adapted import Adapted, prefix, score
from moejax.experts.bank import Bank
from moejax.experts.merge_deltas import patched, task_vector
from moejax.experts.pool import pool_of
from moejax.loss import row_loss
from moejax.models.block import slice_layers
from moejax.train.fulls import FullRecipe, train_fulls
from moejax.train.optimiser import Optimiser
from moejax.train.rows import ArrayRows, drawn, seed_of
from moejax.train.tree_file import flatten
from moejax.train.work import Work
from moejax.types import UserError

RECIPE = FullRecipe(batch=4, optimiser=Optimiser(1e-2, 6))
EMPTY = Bank({}, jnp.zeros(0, bool))


def data(base, names=("ann", "bob")):
    return {name: tiny.rows(base, 6 + 5 * i, seed=i) for i, name in enumerate(names)}


def arrays(base, params):
    return {"params": params, "bank": EMPTY, "router": {}, "labels": base.labels}


def on_device(batch):
    return jax.tree.map(jnp.asarray, batch)


def as_params(base, expert):
    pool = pool_of([expert], base.sites, base.shapes, base.layers)
    return patched(base.params, task_vector(pool.bank, pool.rest, pool.names, np.ones(1), base.layers))


def close(one, other, atol=1e-5):
    for ours, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)


@pytest.mark.parametrize(("kind", "outside"), [("encoder", False), ("decoder", True)])
def test_it_is_optax_on_the_models_own_parameters(kind, outside, tmp_path):
    base = tiny.base(kind)
    recipe = FullRecipe(outside, 4, Optimiser(1e-2, 3, warmup=0.0, schedule="constant", clip=None))
    found = train_fulls(base, data(base), recipe, Work(tmp_path))["bob"]
    stream = drawn(data(base)["bob"], 4, seed_of("bob", 0))
    params = base.params if outside else {"layers": base.params["layers"]}
    adam = optax.adam(optax.join_schedules([optax.linear_schedule(0, 1e-2, 1), lambda step: 1e-2], [1]))
    moments = adam.init(params)

    def loss(params, batch):
        return jnp.mean(row_loss(Adapted(base.model), arrays(base, {**base.params, **params}), batch)[0])

    for step in range(3):
        changes, moments = adam.update(jax.jit(jax.grad(loss))(params, stream(step)), moments)
        params = optax.apply_updates(params, changes)
    ours, theirs = flatten(as_params(base, found)), flatten({**base.params, **params})
    for path in ours.keys() - {
        "layers|attn|k|bias"
    }:  # softmax does not see it: its gradient is rounding alone
        np.testing.assert_allclose(ours[path], theirs[path], rtol=0, atol=1e-5)
    assert bool(found.rest) == outside and len(found.deltas) > len(base.shapes) * base.layers  # norms too


def test_together_in_one_folder_is_apart(tmp_path):
    base = tiny.base("encoder")
    both = train_fulls(base, data(base), RECIPE, Work(tmp_path / "both"))
    for name, rows in data(base).items():
        alone = train_fulls(base, {name: rows}, RECIPE, Work(tmp_path / name))[name]
        for site, delta in alone.deltas.items():
            close(delta, both[name].deltas[site], 0)
        assert not alone.rest and {layer for _, layer in alone.deltas} == {0, 1}
    batch = on_device(data(base)["bob"].take(np.arange(11)))
    tuned = as_params(base, both["bob"])
    loss = [np.mean(row_loss(Adapted(base.model), arrays(base, p), batch)[0]) for p in (base.params, tuned)]
    assert loss[1] < loss[0] - 0.05


def test_layers_that_are_cut_off_stay_as_they_are(tmp_path):
    base = tiny.base("encoder")
    cut = replace(base, params=slice_layers(base.params, 1, 2))
    rows = {}
    for name, some in data(base).items():
        below = np.asarray(prefix(base.model, base.params, on_device(some.whole), 1))
        rows[name] = ArrayRows(some.whole._replace(prefix=below), some.index, some.words)
    made = train_fulls(cut, rows, RECIPE, Work(tmp_path))
    assert {layer for _, layer in made["ann"].deltas} == {1}
    batch = on_device(rows["ann"].take(np.arange(6)))
    top, whole = as_params(base, made["ann"]), arrays(base, as_params(base, made["ann"]))
    ours = score(Adapted(base.model), arrays(cut, slice_layers(top, 1, 2)), batch)[0]
    close(ours, score(Adapted(base.model), whole, batch._replace(prefix=None))[0], 1e-4)
    with pytest.raises(UserError, match="fulls.outside is true, but layers below 1 are not trained"):
        train_fulls(cut, rows, replace(RECIPE, outside=True), Work(tmp_path / "no"))


@dataclass(frozen=True, eq=False)
class Stopping:
    """Rows that interrupt the run when they are drawn once too often."""

    rows: Any
    at: int
    seen: list[int]

    def __len__(self):
        return len(self.rows)

    def take(self, index):
        self.seen.append(0)
        if len(self.seen) == self.at:
            raise KeyboardInterrupt
        return self.rows.take(index)

    def texts(self, index):
        return self.rows.texts(index)


def test_a_killed_run_goes_on_and_ends_in_the_same_numbers(tmp_path):
    base = tiny.base("encoder")
    whole = train_fulls(base, data(base), RECIPE, Work(tmp_path / "whole"))
    rows = data(base)
    stopped = {"ann": rows["ann"], "bob": Stopping(rows["bob"], 4, [])}
    with pytest.raises(KeyboardInterrupt):
        train_fulls(base, stopped, RECIPE, Work(tmp_path / "cut"))
    again = {name: Stopping(some, 0, []) for name, some in rows.items()}
    made = train_fulls(base, again, RECIPE, Work(tmp_path / "cut"))
    assert (len(again["ann"].seen), len(again["bob"].seen)) == (0, 3)
    for name in rows:
        for site, delta in whole[name].deltas.items():
            close(delta, made[name].deltas[site], 0)
