"""Goals: what is met, missed, or was never measured."""

import pytest

from benchmarks import goals
from benchmarks.cases import Size
from benchmarks.decode import LOOP
from benchmarks.layer import FACTOR, OUTPUT, SCORED
from benchmarks.model import SETTINGS


def both(wall, cpu=None):
    cpu = wall if cpu is None else cpu
    return {"wall": [wall, wall, wall], "cpu": [cpu, cpu, cpu]}


def ours(name, ratio, **fields):
    return {"name": name, "kind": "ours", "over_bare": both(ratio), **fields}


def point(size, *rows, back=False, **fields):
    return {"title": str(size), "size": vars(size), "back": back, "grain": "step", "limit": 1.1,
            "rows": list(rows), **fields}  # fmt: skip


def said(**parts):
    return {v.goal.name: v for v in goals.verdicts({"parts": parts, "seconds": 60.0 * 31})}


def test_what_was_not_measured_is_a_failure():
    assert {v.said for v in said().values()} == {"not measured: a failure"}


def test_the_clocks_must_both_agree():
    name = goals.GOALS[0].name
    for ratio, expected in ((both(1.2), "met"), (both(1.3), "missed"), (both(1.2, 1.3), "missed (cpu)"),
                            (both(1.3, 1.2), "missed (wall)"), (both(float("nan"), 1.2), "missed (wall)")):  # fmt: skip
        found = said(layer=[point(Size(), {"name": OUTPUT.name, "kind": "ours", "over_bare": ratio})])[name]
        assert found.said == expected and found.found.limit == 1.1


def test_growth_and_gradients_are_read_at_their_points():
    layer = [point(Size(e=e), ours(OUTPUT.name, ratio)) for e, ratio in ((32, 1.2), (256, 1.5))]
    layer.append(point(Size(e=256), ours(OUTPUT.name, 1.7), back=True))
    layer.append(point(Size(e=8, n=64), ours(OUTPUT.name, 9.0)))
    found = [verdict.found and verdict.found.values["wall"] for verdict in said(layer=layer).values()][:5]
    assert found == [None, 1.5, pytest.approx(1.25), None, 1.7]


def test_decoding_is_compared_with_bytes_and_the_worst_counts():
    rows = [
        point(Size(1, 1024, e), ours(f"{SCORED.name}, {LOOP}", ratio), limit=limit)
        for e, ratio, limit in ((8, 1.2, 1.1), (256, 1.3, 1.3))
    ]
    found = said(decode=rows)[goals.GOALS[5].name]
    assert found.found.values["wall"] == pytest.approx(1.2 / 1.1) and found.found.where == "e=8"


def test_memory_is_what_stays_after_the_scores():
    rows = [
        point(Size(512, 1024, e), {"name": SCORED.name, "kind": "ours", "temporary": 4 * 512 * e + held})
        for e, held in ((8, 10), (32, 1000), (256, 1050))
    ]
    assert said(memory=rows)[goals.GOALS[6].name].found.values == {"bytes": 1.05}
    assert said(memory=rows[:2])[goals.GOALS[6].name].found is None


def test_only_peers_of_the_same_function_count_and_the_worst_of_them():
    def peer(name, rival, ratio):
        return {"name": name, "kind": "peer", "rival": rival, "beside": "", "ours_over_it": both(ratio)}

    rows = [
        peer("one", OUTPUT.name, 0.4), peer("two", FACTOR.name, 0.9),
        peer("given", "", 3.0), {"name": "large", "kind": "peer", "rival": OUTPUT.name, "note": "does not fit"},
    ]  # fmt: skip
    found = said(layer=[point(Size(), *rows)])[goals.GOALS[7].name]
    assert found.found.values["wall"] == 0.9 and found.found.where.startswith("two")
    assert said(layer=[point(Size(n=1), *rows)])[goals.GOALS[7].name].found is None


def test_one_token_is_compared_by_what_routing_adds_too():
    def timed(name, ms, kind="ours", rival=""):
        return {"name": name, "kind": kind, "rival": rival, "ms": {"wall": ms, "cpu": ms}}

    rows = [timed("bare, jax", 0.2), timed("bare, torch", 0.1), timed(OUTPUT.name, 0.3),
            timed("x", 0.6, "peer", OUTPUT.name)]  # fmt: skip
    found = said(layer=[point(Size(n=1), *rows)])[goals.GOALS[9].name]
    assert found.found.values["wall"] == pytest.approx(0.1 / 0.5)


def test_the_encoder_the_training_and_the_time():
    encoder = {"title": str(SETTINGS[0]), "limits": {"ours, 128 experts": 1.4},
               "rows": [ours("ours, 128 experts", 1.9)]}  # fmt: skip
    lessons = [
        {"lesson": name, "ratio": {"cold": {"wall": r, "cpu": r}}}
        for name, r in (("minilm", 0.7), ("tiny", 0.4))
    ]
    found = [verdict.said for verdict in said(model=[encoder], training=lessons).values()][-4:]
    assert found == ["missed", "met", "missed", "not measured: a failure"]
    whole = {"parts": {}, "seconds": 31 * 60.0, "complete": True}
    assert goals.verdicts(whole)[-1].said == "missed"
