"""LoraHub: the checks and worked numbers of its card, on one linear and on a small base."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import world as worlds
from one_linear import base_of, lora, pool, random_loras, run, sizes

from moejax.contract import Fitted
from moejax.evaluate.grants import Grants, Target
from moejax.loss import row_loss
from moejax.methods import lorahub
from moejax.methods.lorahub import METHOD, Config, adapt, cross_entropy, draw, penalised
from moejax.train.work import Work

X = np.random.default_rng(3).normal(size=(5, 4)).astype(np.float32)


def delta(loras, w, x, **options):
    """What experts with these weights add."""
    d, f = sizes(loras)
    base, some, config = base_of(d, f), pool(loras, d, f), Config(**options)
    model = {"weights": jnp.asarray(w, jnp.float32), "experts": jnp.arange(len(w))}
    fitted = Fitted({"model": model, "places": {}, "knobs": {}}, some.names)
    return run(adapt(config, base), METHOD.arrays(config, base, some, fitted), x)[1]


def close(one, other):
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("merge", ["factor", "output"])
def test_zero_is_the_base_and_one_hot_the_expert(merge):
    some = random_loras(3)
    close(delta(some, [0, 0, 0], X, merge=merge), np.zeros((5, 3)))
    for i, one in enumerate(some):
        alone = 1.5 * (X @ one.a.T) @ one.b
        close(delta(some, np.eye(3)[i], X, merge=merge), alone)
        close(delta(some, 0.4 * np.eye(3)[i], X, merge=merge), alone * (0.16 if merge == "factor" else 0.4))


def test_the_merge_is_the_same_for_minus_w():
    some, w = random_loras(3), np.array([0.3, -1.1, 0.8])
    close(delta(some, w, X), delta(some, -w, X))
    close(delta(some, w, X, merge="output"), -delta(some, -w, X, merge="output"))


def test_hand_example():
    some = [lora([[1.0, 0.0]], [[2.0]]), lora([[0.0, 2.0]], [[3.0]])]
    close(delta(some, [0.5, -1.0], np.eye(2)), [[-1.0], [4.0]])
    close(delta(some, [0.5, -1.0], np.eye(2), merge="output"), [[1.0], [-6.0]])


def test_every_expert_has_its_own_scale():
    one, two = lora([[1.0, 0.0]], [[2.0]], alpha=2.0), lora([[0.0, 2.0]], [[3.0]])
    close(delta([one, two], [0.5, -1.0], np.eye(2)), [[-0.5], [2.0]])  # A* = (0.5, -2), B* = 2 - 3


@pytest.mark.parametrize(("scaling", "wanted"), [("released", 0.4375), ("paper", 2.075)])
def test_worked_score(scaling, wanted):
    w = np.array([0.5, -1.0])
    assert penalised(2.0, 5, w, Config(scaling=scaling)) == pytest.approx(wanted, abs=1e-9)


def test_worked_penalty():
    assert penalised(0.0, 5, np.array([0.7, -0.4, 1.5]), Config()) == pytest.approx(0.043333, abs=1e-6)


def fitted(world, tmp_path, given=None, seed=0, rows=None, **options):
    """Fitted on a target, of five rows by default: the router, what its search tried, and the rows."""
    config = Config(**options)
    rows = tiny.rows(world.base, 5, seed=20) if rows is None else rows
    grants = Grants(
        frozenset({"target_labels"}), {}, Target("new", world.target.rows._replace(train=rows), rows)
    )
    work = Work(tmp_path, seed)
    found = METHOD.fit(config, world.base, given or world.pool, grants, work)
    tried = work.memo("weights", lambda: pytest.fail("the search was not kept"))["tried"]
    return found, tried, rows


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_the_search_begins_at_the_base_and_ends_at_the_best_that_was_tried(kind, tmp_path):
    world = worlds.standard(kind)
    found, tried, rows = fitted(world, tmp_path)
    assert len(tried) == 40 and found.trained == 3
    config = Config()
    arrays = METHOD.arrays(config, world.base, world.pool, found)
    bare = arrays | {"bank": worlds.silent(world.pool).bank}
    batch = rows.take(np.arange(5))
    losses = [float(cross_entropy(some, batch, adapted=adapt(config, world.base))) for some in (bare, arrays)]
    assert tried[0] == pytest.approx(losses[0] / 5, abs=1e-6)
    w = np.asarray(found.router["model"]["weights"])
    assert (
        tried.min() == pytest.approx(penalised(losses[1], 5, w, config), abs=1e-6) and tried.min() < tried[0]
    )
    assert np.abs(w).max() <= 1.5


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_the_loss_is_a_mean_over_answers_or_their_tokens(kind):
    world = worlds.standard(kind)
    fit, batch = worlds.fitted(kind, "lorahub"), tiny.rows(world.base, 7, seed=21).take(np.arange(7))
    tokens = np.ones(7)
    if kind == "decoder":  # answers of one to four tokens
        batch = batch._replace(
            answer=batch.answer & (np.cumsum(batch.answer, axis=1) <= np.arange(7)[:, None] % 4 + 1)
        )
        tokens = batch.answer.sum(axis=1)
        assert len(set(tokens)) > 1
    loss, _ = jax.jit(row_loss, static_argnums=0)(fit.adapted, fit.arrays, batch)
    found = float(cross_entropy(fit.arrays, batch, adapted=fit.adapted))
    assert found == pytest.approx(float(loss @ tokens / tokens.sum()), abs=1e-5)


def test_the_first_rows_alone_are_read(tmp_path):
    world = worlds.standard("encoder")
    rows = tiny.rows(world.base, 5, seed=20)
    more = tiny.rows(world.base, 9, seed=20)
    _, tried, _ = fitted(world, tmp_path / "a", rows=more, shots=3)
    _, again, _ = fitted(world, tmp_path / "b", rows=type(rows)(more.whole, more.index[:3]))
    np.testing.assert_array_equal(tried, again)


def test_all_evaluations_share_one_program(tmp_path):
    world = worlds.standard("encoder")
    fitted(world, tmp_path / "a")
    with worlds.compiles() as names:
        fitted(world, tmp_path / "b", seed=1, search="random")
    assert names == []


def test_experts_are_drawn_by_the_seed_without_replacement():
    some = pool(random_loras(30), 4, 3)
    draws = [draw(some, 20, seed) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert len(set(draws[0])) == 20 and set(draws[0]) <= set(range(30))
    assert sorted(draw(some, 31, 0)) == list(range(30))


def test_neither_names_nor_the_pools_order_change_what_is_found(tmp_path):
    world = worlds.standard("encoder")
    turned = world.pool.take(["cy", "ann", "bob"])
    turned = replace(turned, names=("x", "a", "m"))
    found, tried, _ = fitted(world, tmp_path / "a")
    other, again, _ = fitted(world, tmp_path / "b", given=turned)
    close(again, tried)

    def spelled(fit, count):
        w = np.zeros(count)
        w[np.asarray(fit.router["model"]["experts"])] = fit.router["model"]["weights"]
        return w

    close(spelled(other, 3), spelled(found, 3)[[2, 0, 1]])


@pytest.mark.parametrize("search", ["cma", "random"])
def test_other_searches_find_something_too(search, tmp_path):
    found, tried, _ = fitted(worlds.standard("encoder"), tmp_path, search=search)
    assert len(tried) == 40 and tried.min() < np.median(tried)
    assert lorahub.METHOD.needs(Config()) == {"target_labels"}
    assert found.chosen == {"weights": "5 labelled target rows"}
