"""Experts trained together are the experts trained alone; a killed loop ends in the same numbers."""

import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import world as worlds

import moejax.train.work as work_module
from moejax.experts import lora
from moejax.train.experts import Recipe, fresh, sites_of, train_together
from moejax.train.optimiser import Optimiser
from moejax.train.rows import bound, order, pooled
from moejax.train.step import State, train_step
from moejax.train.work import Work
from moejax.types import UserError

RECIPE = Recipe(
    rank=2, alpha=4.0, targets=(tiny.EVERYWHERE, tiny.ON_TOP), batch=4, optimiser=Optimiser(1e-2, 10)
)
RANKS = {"ann": 1, "cy": 3}


def data(base, names=("ann", "bob", "cy")):
    """Unequal sizes of data."""
    return {name: tiny.rows(base, 6 + 5 * i, seed=i) for i, name in enumerate(names)}


def same(one, other, names=None, **options):
    """Experts of the same sites and factors, bit-equal unless a tolerance is given."""
    for name in names or one:
        assert one[name].loras.keys() == other[name].loras.keys()
        for site, mine in one[name].loras.items():
            for a, b in zip(mine[:2], other[name].loras[site][:2], strict=True):
                assert a.shape == b.shape
                np.testing.assert_allclose(a, b, **({"rtol": 0, "atol": 0} | options))


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_together_is_apart_with_unequal_data_and_ranks(kind, tmp_path):
    base = tiny.base(kind)
    rows = data(base)
    together = train_together(base, rows, RECIPE, Work(tmp_path / "all"), ranks=RANKS)
    for name in rows:
        work = Work(tmp_path / name)
        alone = train_together(base, {name: rows[name]}, RECIPE, work, ranks=RANKS)
        same(together, alone, [name], atol=1e-5)
        assert all(lora.norm(one) > 0.01 for one in alone[name].loras.values())  # it learned something
        assert {lora.rank(one) for one in alone[name].loras.values()} == {RANKS.get(name, 2)}


def test_an_expert_is_seeded_by_its_name():
    base = tiny.base("encoder")
    sites = sites_of(RECIPE, base.layers)
    one, again = (fresh(base.shapes, "ann", sites, RECIPE, 0) for _ in range(2))
    site, above = (tiny.EVERYWHERE, 0), (tiny.EVERYWHERE, 1)
    assert np.array_equal(one.loras[site].a, again.loras[site].a)
    others = [fresh(base.shapes, "bob", sites, RECIPE, 0), fresh(base.shapes, "ann", sites, RECIPE, 1)]
    draws = [one.loras[site].a, one.loras[above].a, *(other.loras[site].a for other in others)]
    assert len({draw.tobytes() for draw in draws}) == 4
    assert not one.loras[site].b.any()


class Killed(KeyboardInterrupt):
    """Stands for Ctrl-C."""


def test_an_interrupted_loop_resumes_to_the_same_bits(tmp_path, monkeypatch):
    base = tiny.base("encoder")
    rows = data(base)
    whole = train_together(base, rows, RECIPE, Work(tmp_path / "whole"))
    calls, lines = [], []

    def failing(*args, **kwargs):
        calls.append(1)
        if len(calls) == 5:
            raise Killed
        return train_step(*args, **kwargs)

    monkeypatch.setattr(work_module, "train_step", failing)
    with pytest.raises(Killed):
        train_together(base, rows, RECIPE, Work(tmp_path / "cut", log=lines.append))
    resumed = train_together(base, rows, RECIPE, Work(tmp_path / "cut", log=lines.append))
    assert len(calls) == 5 + 6  # four steps were kept
    assert [line["step"] for line in lines] == list(range(10))
    same(whole, resumed)
    assert not (tmp_path / "cut" / "checkpoints" / "experts").exists()
    again = train_together(base, rows, RECIPE, Work(tmp_path / "cut"))  # what is done is read
    assert len(calls) == 5 + 6
    same(whole, again)


def test_names_and_seeds_compile_nothing(tmp_path):
    rows = data(tiny.base("encoder"))
    train_together(tiny.base("encoder"), rows, RECIPE, Work(tmp_path / "first"))
    renamed: dict = dict(zip(("x", "y", "z"), rows.values(), strict=True))
    with worlds.compiles() as programs:
        train_together(tiny.base("encoder"), renamed, RECIPE, Work(tmp_path / "renamed", seed=5))
    assert programs == []


def test_a_loop_saves_now_and_then_and_goes_on_from_there(tmp_path):
    def step(state, number):
        if number == 3:
            raise RuntimeError("the machine is gone")
        return state._replace(trainable=state.trainable + number, step=state.step + 1), jnp.zeros(())

    start = State(jnp.float32(0), {}, jnp.int32(0))
    work = Work(tmp_path, every=0.0)
    with pytest.raises(RuntimeError):
        work.loop("slow", step, start, int, 6)
    ran = []

    def going_on(state, number):
        ran.append(number)
        return state._replace(trainable=state.trainable + number, step=state.step + 1), jnp.zeros(())

    done = work.loop("slow", going_on, start, int, 6)
    assert ran == [3, 4, 5] and float(done.trainable) == 15 and int(done.step) == 6


def test_a_loop_without_a_save_makes_no_folder(tmp_path):
    start = State({}, {}, jnp.int32(0))
    Work(tmp_path).loop("quick", lambda state, number: (state, jnp.zeros(())), start, int, 2)
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_not_finite_names_the_step_and_the_expert(tmp_path):
    lines = []

    def step(state, number):
        return state, jnp.array([1.0, 2.0, jnp.nan if number == 1 else 3.0])

    work = Work(tmp_path, log=lines.append)
    with pytest.raises(UserError, match="experts: the loss is not finite at step 1, expert 'cy'; lower"):
        work.loop("experts", step, State({}, {}, jnp.int32(0)), int, 3, ("ann", "bob", "cy"))
    assert lines == [{"loop": "experts", "step": 0, "loss": 2.0}]


def test_pooled_rows_carry_their_owner_whatever_the_order_of_names():
    base = tiny.base("encoder")
    rows = data(base)
    total = sum(map(len, rows.values()))
    batch, turned = (pooled(rows, names, total, seed=3)(0) for names in (list(rows), list(reversed(rows))))
    assert np.bincount(batch.expert).tolist() == [6, 11, 16]  # one epoch: every row once
    assert np.array_equal(turned.tokens, batch.tokens) and np.array_equal(turned.expert, 2 - batch.expert)
    for e, name in enumerate(rows):
        mine = {tokens.tobytes() for tokens in rows[name].whole.tokens}
        assert {tokens.tobytes() for tokens in batch.tokens[batch.expert == e]} == mine


def test_a_bound_stream_does_not_depend_on_who_else_is_there():
    base = tiny.base("encoder")
    rows = data(base)
    all_of_them = bound(rows, ["ann", "bob", "cy"], 3, seed=0)(7)
    alone = bound(rows, ["bob"], 3, seed=0)(7)
    assert np.array_equal(all_of_them.tokens[3:6], alone.tokens)
    assert all_of_them.expert.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_each_epoch_is_shuffled_anew():
    at = order(5, seed=0)
    epochs = [[at(5 * epoch + i) for i in range(5)] for epoch in range(3)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
