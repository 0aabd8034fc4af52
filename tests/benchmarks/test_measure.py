"""Interleaved timing: what is repeated, in which rounds, and what is divided by what."""

import numpy as np
import pytest

from benchmarks import measure
from benchmarks.measure import Effort, Entry, Ready, ratio, rounds

QUICK = Effort(seconds=0.02, least=3, most=5, span=0.0)


class Counted:
    """A call that counts itself."""

    def __init__(self):
        self.times = 0

    def __call__(self):
        self.times += 1


def entry(name, bare="bare", **fields):
    return Entry(name, Counted, bare, **fields)


def test_a_row_has_both_clocks_and_the_ratio_to_the_bare_call():
    bare, ours = measure.measure([entry("bare", kind="bare"), entry("ours")], QUICK)
    assert bare["over_bare"] == {"wall": [1, 1, 1], "cpu": [1, 1, 1]}
    assert 3 <= ours["rounds"] <= 5 and set(ours["ms"]) == {"wall", "cpu"}
    assert "ours_over_it" not in ours


def test_ratios_are_of_one_round_and_their_quartiles_bracket_the_median():
    slow = np.array([[2.0, 2.0], [30.0, 3.0], [4.0, 9.0], [np.nan, np.nan]])
    bare = np.array([[1.0, 1.0], [10.0, 1.0], [1.0, 3.0], [1.0, 1.0]])
    assert ratio(slow, bare) == {"wall": [3.0, 2.5, 3.5], "cpu": [3.0, 2.5, 3.0]}  # 2, 3, 4 and 2, 3, 3


def test_what_is_taken_less_often_is_taken_where_others_are(monkeypatch):
    seen = []
    monkeypatch.setattr(measure, "timed", lambda call, repeats: seen.append((call, repeats)) or (1.0, 2.0))
    ready = {name: Ready(Counted(), 7, 1.0, 1) for name in "abc"}
    samples = rounds(ready, {"a": 9, "b": 4, "c": 2}, seed=3)
    taken = {name: set(np.flatnonzero(np.isfinite(some[:, 0]))) for name, some in samples.items()}
    assert taken["c"] < taken["b"] < taken["a"] == set(range(9))
    assert len(seen) == 15 and {repeats for _, repeats in seen} == {7}
    assert samples["b"][sorted(taken["b"])].tolist() == [[1.0, 2.0]] * 4


def test_the_order_changes_from_round_to_round(monkeypatch):
    order = []
    ready = {name: Ready(lambda name=name: order.append(name), 1, 1.0, 1) for name in "abc"}
    rounds(ready, dict.fromkeys("abc", 20))
    each = {tuple(order[i : i + 3]) for i in range(0, 60, 3)}
    assert len(each) > 1 and all(sorted(one) == ["a", "b", "c"] for one in each)


def test_a_slow_peer_is_taken_a_few_times_and_ours_are_always_taken_often(monkeypatch):
    effort = Effort(seconds=1.0, least=15, most=40, few=3)
    monkeypatch.setattr(measure, "timed", lambda call, repeats: (call(), 0.0))
    calls = {"bare": ("bare", 0.001), "ours": ("ours", 0.4), "slow": ("peer", 0.4), "quick": ("peer", 0.1)}
    ready = {}
    for name, (kind, seconds) in calls.items():
        ready[name] = measure._ready(Entry(name, lambda s=seconds: lambda: s, "bare", kind), effort)
    taken = measure._taken(ready, {"bare"}, effort)
    assert taken == {"bare": 40, "ours": 15, "slow": 3, "quick": 15}
    assert [one.repeats for one in ready.values()] == [4, 1, 1, 1]


def test_a_call_is_divided_into_its_steps():
    (bare, ours) = measure.measure([entry("bare"), entry("ours", steps=1000)], QUICK)
    assert ours["over_bare"]["wall"][0] < 0.2


def test_what_needs_too_much_memory_is_never_made():
    def make():
        raise AssertionError("it was made")

    bare, large = measure.measure(
        [entry("bare"), Entry("large", make, "bare", "peer", "bare", need=8.6e9)], QUICK
    )
    assert large["note"] == "does not fit: 8.6 GB"
    assert "over_bare" not in large


def test_what_takes_too_long_says_so(monkeypatch):
    monkeypatch.setattr(measure, "timed", lambda call, repeats: (25.0, 25.0))
    assert measure._ready(entry("long"), Effort()) == "does not fit: 3 calls of 25 s"


@pytest.mark.parametrize("field", ["rival", "beside"])
def test_a_peer_is_divided_by_its_own_bare_call_and_ours_by_the_peer(field, monkeypatch):
    monkeypatch.setattr(measure, "timed", lambda call, repeats: (call(), 10 * call()))
    seconds = {"bare": 0.1, "ours": 0.2, "other": 0.5, "peer": 4.0}
    bares = {"bare": "bare", "ours": "bare", "other": "other", "peer": "other"}
    rows = measure.measure(
        [
            Entry(name, lambda s=s: lambda: s, bares[name], **({field: "ours"} if name == "peer" else {}))
            for name, s in seconds.items()
        ],
        QUICK,
    )
    ratios = [row["over_bare"]["wall"][0] for row in rows]
    assert ratios == [1, 2, 1, 8] and rows[3]["ours_over_it"]["cpu"][0] == 0.05
    assert rows[1]["ms"] == {"wall": 200, "cpu": 2000}
