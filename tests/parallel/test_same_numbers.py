"""A mesh changes no number: losses of training and scores of every method, as one device gives them."""

import re
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest
import world as worlds

from moejax.methods import load
from moejax.parallel.mesh import MeshConfig, make_mesh
from moejax.parallel.rules import placed
from moejax.train import step
from moejax.train.experts import Recipe, train_together
from moejax.train.optimiser import Optimiser
from moejax.train.work import Work

MESHES = ((8, 1, 1), (2, 4, 1), (2, 2, 2), (1, 8, 1))
QUICK = [(line, (2, 4, 1)) for line in ("uniform", "arrow")]
MODES = (
    "arrow(factor)",
    "lorahub(output)",
    "granularity(task)",
    "granularity(example)",
    "mole(token)",
    "mole(matrix)",
)
MODES += ("adapterfusion(all)", "own_expert(bottleneck)", "own_expert(delta)", "we_moe(delta)")
EVERY = [line for line in worlds.LINES if "(" not in line or line in MODES]
"""Every method, and the modes that mix at another grain or in another way."""
BROAD = [(line, mesh) for line in EVERY for mesh in MESHES if (line, mesh) not in QUICK]


def meshed(sizes):
    """The mesh of these sizes set; none for None."""
    return nullcontext() if sizes is None else jax.set_mesh(make_mesh(MeshConfig(*sizes)))


@cache
def fitted(line):
    """A line fitted where the pool has eight slots, three of them used, and its world."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worlds, "CAPACITY", 8)
        of = {"bottleneck": "adapterfusion", "delta": "own_expert(delta)"}.get(worlds.routes(line), "base")
        world = worlds.make("encoder", line=of)
        return worlds.fit(world, line), world


def same_scores(line, sizes):
    fit, world = fitted(line)
    batch = worlds.batch(world, 8)
    wanted, _ = worlds.look(fit, batch)
    with meshed(sizes):
        there = placed(fit.arrays)
        found, weights = jax.device_get(worlds.program(there, batch, fit.adapted))
        compiled = worlds.program._cache_size()
        worlds.program(there, batch, fit.adapted)
        assert worlds.program._cache_size() == compiled
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    for w in weights.values():
        assert not np.asarray(w)[..., len(fit.pool.names) :].any()  # padding is never chosen


@pytest.mark.parametrize(("line", "sizes"), QUICK)
def test_scores_of_a_few_methods(line, sizes):
    same_scores(line, sizes)


@pytest.mark.slow
@pytest.mark.parametrize(("line", "sizes"), BROAD)
def test_scores_of_every_method_on_every_mesh(line, sizes):
    same_scores(line, sizes)


def experts(work):
    """Experts of three tasks, together."""
    world = worlds.standard("encoder")
    rows = {name: split.train for name, split in world.data.items()}
    train_together(world.base, rows, Recipe(rank=2, batch=8, optimiser=Optimiser(5e-3, 10)), work)


def gates(name):
    """Ten steps of a method's own training, by its contributors or in its fit."""

    def train(work):
        world, method = worlds.standard("encoder"), load(name)
        settings = replace(worlds.config(name), steps=10, batch=8)
        pool = world.pool.allow(*method.extras(settings))
        if method.contribute:
            rows = {one: world.data[one].train for one in pool.names}
            method.contribute(settings, world.base, pool, rows, work)
        else:
            method.fit(settings, world.base, pool, worlds.grants(world, method.needs(settings)), work)

    return train


@pytest.mark.parametrize(
    "line",
    [line if line in ("base", "arrow") else pytest.param(line, marks=pytest.mark.slow) for line in EVERY],
)
def test_along_data_only_weights_of_the_base_are_gathered(line):
    """Each once, as FSDP does: activations, scores, tokens in the order of their experts stay on their devices."""
    fit, world = fitted(line)
    with meshed((8, 1, 1)):
        given = placed(fit.arrays), worlds.batch(world, 8), fit.adapted
        text = worlds.program.lower(*given).compile().as_text()
    moved = re.findall(
        r" (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(", text
    )
    kernels = 6 + 1  # of a layer, within a scan; the word table
    assert moved == ["all-gather"] * (2 * kernels - 1 if line == "calm" else kernels)  # CALM's second model


@pytest.mark.parametrize(
    "line", [line if line == "token_gate" else pytest.param(line, marks=pytest.mark.slow) for line in EVERY]
)
def test_free_slots_are_no_parameters(line):
    """As many are trained with eight slots, five of which pad to a mesh, as with five."""
    assert fitted(line)[0].router.trained == worlds.fitted("encoder", line).router.trained


TRAINED = {"experts": experts} | {name: gates(name) for name in ("phatgoose", "meteora", "mole")}


@cache
def losses(name, sizes):
    """The losses of ten steps, and how many programs of a step were compiled."""
    found, before = [], step.train_step._cache_size()
    with meshed(sizes), tempfile.TemporaryDirectory() as folder:
        TRAINED[name](Work(Path(folder), log=lambda record: found.append(record["loss"])))
    return np.array(found), step.train_step._cache_size() - before


def same_losses(name, sizes):
    (found, compiled), (alone, _) = losses(name, sizes), losses(name, None)
    assert len(alone) == 10 and len(set(alone)) > 5
    np.testing.assert_allclose(found, alone, rtol=1e-5)
    assert compiled == 1  # the second step compiles nothing


def test_losses_of_experts_trained_together():
    same_losses("experts", (2, 4, 1))


@pytest.mark.slow
@pytest.mark.parametrize("sizes", MESHES)
@pytest.mark.parametrize("name", TRAINED)
def test_losses_of_experts_gates_and_routers_on_every_mesh(name, sizes):
    same_losses(name, sizes)
