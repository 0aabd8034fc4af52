"""Checkpoints: which are kept, from one mesh to another, what a full disk and a signal leave."""

import ast
import json
import os
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import saved
import tiny
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import moejax.train.work as work_module
from moejax.train.checkpoint import Checkpoints
from moejax.train.experts import Recipe, train_together
from moejax.train.optimiser import Optimiser
from moejax.train.step import State, train_step
from moejax.train.work import Work
from moejax.types import UserError

ROOT = Path(__file__).parents[2]


def state(value: float) -> State:
    """A state that tells its step."""
    return State({"gate": jnp.full((4, 3), float(value))}, {"mu": jnp.float32(-value)}, jnp.int32(value))


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_the_newest_and_the_best_are_kept(tmp_path):
    with Checkpoints(tmp_path / "c") as kept:
        assert kept.newest is None and kept.best is None and not kept.folder.exists()
        for step, loss in enumerate([3.0, 1.0, 2.0, 4.0], start=1):
            kept.save(step, state(step), loss)
    with Checkpoints(tmp_path / "c") as kept:
        assert sorted(kept.manager.all_steps()) == [2, 4]
        assert (kept.newest, kept.best) == (4, 2)
        same(kept.restore(state(0)), state(4))
        same(kept.restore(state(0), kept.best), state(2))
        kept.save(5, state(5))  # without a loss it is the newest, never the best
        kept.save(6, state(6), 0.5)
    with Checkpoints(tmp_path / "c") as kept:
        assert kept.manager.all_steps() == [6] and kept.best == 6


def test_a_step_is_saved_once_and_never_an_older_one(tmp_path):
    with Checkpoints(tmp_path) as kept:
        kept.save(2, state(2))
        kept.save(2, state(7))
        with pytest.raises(ValueError, match="has step 2: step 1 is older"):
            kept.save(1, state(1))
        same(kept.restore(state(0)), state(2))


def test_beside_the_state_stands_where_the_loop_is(tmp_path):
    with Checkpoints(tmp_path, rows=8) as kept:
        kept.save(3, state(3))
    at = json.loads((tmp_path / "3" / "at" / "metadata").read_text())
    assert at == {"step": 3, "rows": 24, "mesh": {}}
    with (
        Checkpoints(tmp_path, rows=6) as other,
        pytest.raises(UserError, match="after 24 rows, but 3 steps of 6 rows are 18"),
    ):
        other.restore(state(0))


def test_a_checkpoint_that_cannot_be_read_is_named(tmp_path):
    with Checkpoints(tmp_path) as kept:
        kept.save(1, state(1))
        with pytest.raises(UserError, match="/1 cannot be read .*: delete .* and run again"):
            kept.restore({"another": jnp.zeros(2)})
    for path in (tmp_path / "1" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:7])
    with Checkpoints(tmp_path) as kept, pytest.raises(UserError, match="/1 cannot be read"):
        kept.restore(state(0))


def test_a_donated_state_is_saved_as_it_was(tmp_path):
    """The save goes on behind the steps that use its buffers again."""

    @partial(jax.jit, donate_argnums=0)
    def step(now):
        return jax.tree.map(lambda leaf: leaf + 1, now)

    now = step(State({"w": jnp.zeros((4, 1_000_000))}, {}, jnp.int32(0)))
    with Checkpoints(tmp_path) as kept:
        kept.save(1, now)
        after = step(now)
        last = step(after)
        for _ in range(20):
            last = step(last)
        assert after.trainable["w"].is_deleted() and int(last.step) == 23
    with Checkpoints(tmp_path) as kept:
        found = kept.restore(last)
    assert int(found.step) == 1 and (np.asarray(found.trainable["w"]) == 1).all()


def test_a_save_does_not_wait_for_the_disk(tmp_path, monkeypatch):
    gate, returned = threading.Event(), []
    with Checkpoints(tmp_path) as kept:
        finalize = kept.manager._finalize

        def late(*args):
            gate.wait(10)
            returned.append(gate.is_set())
            finalize(*args)

        monkeypatch.setattr(kept.manager, "_finalize", late)
        kept.save(1, state(1))
        gate.set()
    assert returned == [True]


def mesh(*sizes: int) -> jax.sharding.Mesh:
    return jax.make_mesh(sizes, ("data", "expert", "model"), axis_types=(AxisType.Auto,) * 3)


def placed(one: State, on: jax.sharding.Mesh, *axes) -> State:
    """The state with its large leaf split over these axes."""
    where = State({"w": NamedSharding(on, P(*axes))}, {}, NamedSharding(on, P()))
    return jax.device_put(one, where)


def test_it_is_restored_onto_another_mesh(tmp_path):
    values = np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)
    whole = State({"w": jnp.asarray(values)}, {}, jnp.int32(5))
    split = placed(whole, mesh(8, 1, 1), "data")
    assert len({shard.device for shard in split.trainable["w"].addressable_shards}) == 8
    with Checkpoints(tmp_path) as kept:
        kept.save(5, split)
    assert json.loads((tmp_path / "5" / "at" / "metadata").read_text())["mesh"] == {
        "data": 8, "expert": 1, "model": 1,
    }  # fmt: skip
    blank = jax.tree.map(jnp.zeros_like, whole)
    for wanted in (placed(blank, mesh(2, 4, 1), ("data",), "expert"), blank):
        with Checkpoints(tmp_path) as kept:
            found = kept.restore(wanted)
        assert found.trainable["w"].sharding == wanted.trainable["w"].sharding
        np.testing.assert_array_equal(found.trainable["w"], values)
        assert int(found.step) == 5
        for shard in found.trainable["w"].addressable_shards:
            np.testing.assert_array_equal(shard.data, values[shard.index])


def test_a_path_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with Checkpoints(tmp_path / "file" / "c") as kept:
        assert kept.newest is None
        with pytest.raises(OSError, match="file/c cannot be written"):
            kept.save(1, state(1))


def child(case: str, folder: Path) -> subprocess.Popen:
    words = [sys.executable, str(ROOT / "tests" / "saved.py"), case, str(folder)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path):
    _, err = child("full", tmp_path).communicate(timeout=120)
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "checkpoints/full cannot be written (" in lines[0], err
    with Checkpoints(tmp_path / "checkpoints" / "full", rows=4) as kept:
        assert kept.newest == 1
        same(kept.restore(saved.start()), saved.moved(saved.start(), 0)[0])


def test_sigterm_saves_and_the_loop_goes_on_to_the_same_bits(tmp_path):
    running = child("slow", tmp_path)
    assert running.stdout is not None
    while (line := running.stdout.readline()) not in ("3\n", ""):
        pass
    running.send_signal(signal.SIGTERM)
    out, err = running.communicate(timeout=120)
    assert running.returncode == 143 and err.strip() == "stopped; to go on: python saved.py slow", err
    wanted, ran = saved.start(), []
    done = max(map(int, (line + out).split())) + 1
    with Checkpoints(tmp_path / "checkpoints" / "slow", rows=4) as kept:
        assert kept.newest == done < saved.STEPS

    def step(now, number):
        ran.append(number)
        return saved.moved(now, number)

    found = Work(tmp_path).loop("slow", step, saved.start(), int, done + 3, rows=4)
    for number in range(done + 3):
        wanted = saved.moved(wanted, number)[0]
    same(found, wanted)
    assert ran == [done, done + 1, done + 2]


def test_what_is_trained_is_saved_alone(tmp_path, monkeypatch):
    base, calls = tiny.base("encoder"), []
    recipe = Recipe(rank=2, targets=(tiny.EVERYWHERE,), batch=4, optimiser=Optimiser(1e-2, 4))

    def failing(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return train_step(*args, **kwargs)

    monkeypatch.setattr(work_module, "train_step", failing)
    with pytest.raises(KeyboardInterrupt):
        train_together(base, {"ann": tiny.rows(base, 8)}, recipe, Work(tmp_path))
    (found,) = (tmp_path / "checkpoints" / "experts").glob("*/state/_METADATA")
    names = [ast.literal_eval(key) for key in json.loads(found.read_text())["tree_metadata"]]
    assert {one[-1] for one in names} <= {"a", "b", "step", "count"} | {str(i) for i in range(9)}, names
    assert not [one for one in names if "params" in one]
    assert json.loads((found.parents[1] / "at" / "metadata").read_text())["rows"] == 2 * 4
