"""When a loop saves."""

import pytest

from moejax.train import due
from moejax.train.due import Due


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(due.time, "monotonic", lambda: now[0])
    return now


def test_a_process_alone_looks_at_every_step(clock):
    one = Due(10.0, 0)
    for clock[0], wanted in ((1, False), (10, False), (10.5, True), (11, True)):
        assert one(1) == wanted
    one.saved(2)
    assert not one(3)


def test_several_look_together_near_the_time(clock, monkeypatch):
    monkeypatch.setattr(due.hosts, "count", lambda: 2)
    looks = []
    monkeypatch.setattr(due.hosts, "first", lambda do: looks.append(do()) or looks[-1])
    one, saves = Due(10.0, 0), []
    for done in range(1, 101):  # a second for the first step, then ten steps a second
        clock[0] = 1 + (done - 1) * 0.1
        if one(done):
            saves.append(done)
            one.saved(done)
    assert len(saves) == 1 and 91 < saves[0] <= 99
    assert len(looks) < 25


def test_without_a_pause_every_step_is_saved(clock, monkeypatch):
    monkeypatch.setattr(due.hosts, "count", lambda: 2)
    monkeypatch.setattr(due.hosts, "first", lambda do: do())
    one = Due(0.0, 0)
    for done in range(1, 5):
        clock[0] += 0.01
        assert one(done)
        one.saved(done)
