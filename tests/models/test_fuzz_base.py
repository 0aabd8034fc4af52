"""Bases of strangers, damaged at random: an error or the same tensors, never a crash, a hang or much memory."""

import fuzz
import pytest


def check(seeds):
    said = fuzz.run("models.fuzz_base", seeds)
    assert said.keys() == {fuzz.REFUSED, "the same tensors", "other numbers"}
    assert said[fuzz.REFUSED] > len(seeds) / 3, said


def test_a_few_hundred():
    check(range(300))


@pytest.mark.slow
def test_a_few_thousand():
    check(range(300, 3300))


@pytest.mark.parametrize("how", ["space", "time", "crash", "error"])
def test_the_harness_sees_faults(how):
    """What it is for: each of these would otherwise pass unseen."""
    message = {
        "space": "MemoryError",
        "time": "computed longer than 5 s",
        "crash": "died of signal 11",
        "error": "ZeroDivisionError",
    }[how]
    with pytest.raises(AssertionError, match=message):
        fuzz.run("models.fuzz_faults", [["space", "time", "crash", "error"].index(how)])
    assert fuzz.run("models.fuzz_faults", [9]) == {fuzz.REFUSED: 1}
