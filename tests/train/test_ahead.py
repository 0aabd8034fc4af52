"""Batches are made ahead of their steps, in order, and change no number; whatever goes wrong comes at its own step."""

import os
import signal
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from moejax.adapted import Adapted
from moejax.places import LINEARS, Lora, own_expert
from moejax.train.ahead import AHEAD, ahead
from moejax.train.checkpoint import Checkpoints
from moejax.train.experts import trainable
from moejax.train.optimiser import Optimiser
from moejax.train.rows import bound
from moejax.train.step import State, begin, train_step
from moejax.train.work import Work


def test_batches_come_in_order_on_the_device_and_no_more_than_are_asked_for():
    made = []

    def stream(number):
        made.append(number)
        return {"number": np.full(2, number), "none": None}

    with ahead(stream, 3, 40) as batches:
        first = next(batches)
        assert isinstance(first["number"], jax.Array) and first["none"] is None
        time.sleep(0.2)
        assert made == list(range(3, 3 + 1 + AHEAD))
        found = [3, *(int(next(batches)["number"][0]) for _ in range(5))]
    assert found == list(range(3, 9))
    time.sleep(0.2)
    assert len(made) <= 6 + AHEAD
    with ahead(stream, 4, 4) as batches:
        assert list(batches) == []


def test_an_error_comes_where_its_batch_is_asked_for():
    def stream(number):
        if number == 2:
            raise ValueError("row 2 is broken")
        return number

    with ahead(stream, 0, 9) as batches:
        assert [next(batches), next(batches)] == [0, 1]
        with pytest.raises(ValueError, match="row 2 is broken"):
            next(batches)


def counting(number):
    return np.float32(number)


def adding(state, batch):
    """A step that adds the batch."""
    return State(state.trainable + batch, {}, state.step + 1), jnp.zeros(())


def start():
    return State(jnp.float32(0), {}, jnp.int32(0))


def test_the_next_batch_is_made_while_a_step_runs(tmp_path):
    """A step that waits for the batch of the next one would wait for ever, were that made after it."""
    made = [threading.Event() for _ in range(6)]

    def stream(number):
        made[number].set()
        return counting(number)

    def step(state, batch):
        assert made[min(int(batch) + 1, 5)].wait(10)
        return adding(state, batch)

    assert float(Work(tmp_path).loop("loop", step, start(), stream, 6).trainable) == 15


def test_numbers_are_those_of_a_plain_loop(tmp_path):
    base, names = tiny.base("encoder"), ["ann", "bob"]
    bank = tiny.pool(base, *names).bank
    rows = {name: tiny.rows(base, 7, seed=i) for i, name in enumerate(names)}
    arrays = {"params": base.params, "bank": bank, "router": {}, "labels": base.labels}
    adapted = Adapted(base.model, ((LINEARS, Lora("output")),), route=own_expert)
    optimiser, stream, lines = Optimiser(1e-2, 4), bound(rows, names, 3, 0), []
    work = Work(tmp_path, log=lines.append)
    found = work.train("loop", adapted, arrays, trainable(bank), stream, optimiser, together=names)
    state, losses = begin(jax.tree.map(jnp.array, trainable(bank)), optimiser, True), []
    for number in range(4):
        state, loss = train_step(
            state, arrays, stream(number), None, adapted=adapted, optimiser=optimiser, together=True
        )
        losses.append(float(np.mean(loss)))
    jax.tree.map(np.testing.assert_array_equal, found, state.trainable)
    assert [line["loss"] for line in lines] == losses


def test_an_error_of_the_stream_keeps_the_steps_before_it(tmp_path):
    def stream(number):
        if number == 3:
            raise ValueError("row 3 is broken")
        return counting(number)

    lines, ran = [], []
    work = Work(tmp_path, log=lines.append)
    with pytest.raises(ValueError, match="row 3 is broken"):
        work.loop("loop", adding, start(), stream, 6)
    assert [line["step"] for line in lines] == [0, 1, 2]

    def step(state, batch):
        ran.append(int(batch))
        return adding(state, batch)

    done = work.loop("loop", step, start(), counting, 6)
    assert ran == [3, 4, 5] and float(done.trainable) == 15


def saved(folder):
    """The step of the newest checkpoint of a loop."""
    with Checkpoints(folder / "checkpoints" / "loop") as checkpoints:
        return checkpoints.manager.latest_step()


def test_ctrl_c_while_a_batch_is_waited_for_ends_at_once_and_keeps_the_state(tmp_path):
    go_on = threading.Event()

    def stream(number):
        if number == 2:
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
            go_on.wait(30)
        return counting(number)

    begun = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            Work(tmp_path).loop("loop", adding, start(), stream, 6)
        assert time.monotonic() - begun < 20
    finally:
        go_on.set()
    assert saved(tmp_path) == 2
    assert float(Work(tmp_path).loop("loop", adding, start(), counting, 6).trainable) == 15


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_within_a_step_waits_for_its_end(number, tmp_path, monkeypatch):
    """Whatever other threads there are, which would take it for the main one."""
    came, ended = [], []
    before = signal.signal(signal.SIGTERM, lambda got, frame: came.append(got) or _exit())

    def _exit():
        raise SystemExit

    def step(state, batch):
        if int(batch) == 2:
            os.kill(os.getpid(), number)
            time.sleep(0.2)
            ended.append(True)
        return adding(state, batch)

    try:
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            Work(tmp_path).loop("loop", step, start(), counting, 6)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended and came == [signal.SIGTERM] * (number == signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert saved(tmp_path) == 3
