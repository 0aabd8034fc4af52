"""Each part at a toy size: what it saves has what the tables read, and the numbers are what was asked for."""

import json
import sys

import bench_case
import numpy as np
import pytest

from benchmarks import __main__, layer, memory, merging, quick, report, tables, training
from benchmarks.cases import Size, directions, draw


@pytest.fixture(scope="module")
def parts():
    return json.loads(json.dumps(bench_case.parts(peers=False)))


def test_every_token_chooses_different_experts_and_weights_sum_to_one():
    case = draw(Size(40, 8, 5, 3, 2))
    assert all(len(set(row)) == 3 for row in case.index.tolist())
    assert set(case.index.flatten()) == set(range(5))
    np.testing.assert_allclose(case.values.sum(1), 1, rtol=0, atol=1e-6)
    np.testing.assert_allclose(case.dense.sum(1), 1, rtol=0, atol=1e-6)


@pytest.mark.parametrize("way", [layer.Way(formulation=name) for name in layer.STEPS], ids=str)
def test_all_formulations_give_the_same_numbers(way):
    case = draw(bench_case.SIZE)
    for one, other in zip(layer.output(case, layer.OUTPUT, True), layer.output(case, way, True), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-5 * max(1, np.abs(other).max()))


def test_prototypes_of_the_library_are_those_worked_out_apart():
    case = draw(Size(1, 24, 7, 1, 3))
    cosine = np.abs(np.sum(merging.prototypes(case)()[0] * directions(case.a, case.b), axis=1))
    np.testing.assert_allclose(cosine, 1, rtol=0, atol=1e-5)


def test_the_layer_is_the_sum_spelled_out():
    case = draw(bench_case.SIZE)
    expected = case.x @ case.w
    for i, (values, index) in enumerate(zip(case.values, case.index, strict=True)):
        expected[i] += sum(
            2.0 * w * (case.x[i] @ case.a[e].T) @ case.b[e] for w, e in zip(values, index, strict=True)
        )
    (found,) = layer.output(case, layer.OUTPUT)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_a_loop_of_tokens_is_the_layer_on_each():
    from benchmarks import decode

    case = draw(Size(3, 32, 6, 2, 4))
    some = layer.given(draw(Size(1, 32, 6, 2, 4)))
    found = decode.loop(some, case.x, way=layer.SCORED, k=2)
    last = np.zeros(32, np.float32)
    for token, y in zip(case.x, found, strict=True):
        x = token + decode.MIX * last
        last = layer.forward(some._replace(x=x[None, None]), way=layer.SCORED, k=2)[0, 0]
        np.testing.assert_allclose(y, last, rtol=0, atol=1e-5)


def test_each_point_has_a_row_for_every_way(parts):
    forward, back, example, task = parts["layer"]
    names = {row["name"] for row in forward["rows"]}
    others = {f"ours, {name}" for name in layer.STEPS if name != forward["rule"]}
    assert len(others) == 2
    assert names == others | {
        "bare, jax", "ours, by the rule", "ours, by the rule, scored", "ours, by the rule, factor"
    }  # fmt: skip
    assert {way.name for way in layer.ways(bench_case.SIZE, whole=False)} == others | {"ours, by the rule"}
    assert back["back"] and not forward["back"]
    assert [row["name"] for row in task["rows"]] == [
        "bare, jax",
        "ours, the task's",
        "ours, the task's, factor",
    ]
    assert len(example["rows"]) == 3
    for point in parts["layer"]:
        assert point["limit"] > 1
        assert all(row["over_bare"]["wall"][0] > 0 for row in point["rows"])


def test_models_have_the_bare_base_one_lora_and_the_pools(parts):
    for point in parts["model"]:
        assert [row["name"] for row in point["rows"]] == ["bare, jax", "ours, one LoRA", "ours, 3 experts"]
        assert 1 < point["limits"]["ours, one LoRA"] < point["limits"]["ours, 3 experts"]


def test_the_tables_read_what_the_parts_save(parts, capsys):
    results = bench_case.results(parts)
    shown = {table.key: table for table in tables.tables(results)}
    assert set(shown) == {"goals", "layer", "decode", "model", "merging"}
    assert all(len(line) == len(table.heads) for table in shown.values() for line in table.rows)
    report.show(results)
    assert "[quartiles]" in capsys.readouterr().out


@pytest.mark.skipif(not memory.available(), reason="this system does not say how much a process held")
def test_peak_memory_of_what_is_known():
    held = memory.peak(lambda: np.ones(3_000_000))
    assert 20e6 < held < 40e6  # 24 MB


@pytest.mark.skipif(not memory.available(), reason="this system does not say how much a process held")
def test_memory_of_a_layer_and_of_a_model():
    rows = memory._work({"size": vars(bench_case.SIZE), "back": True, "framework": "jax"})
    assert [row["name"] for row in rows][:2] == ["bare, jax", "ours, by the rule"]
    assert all(row["bytes"] >= 0 and row["temporary"] >= 0 for row in rows)
    rows = memory.of_model(bench_case.SETTINGS[0], "jax")
    assert [row["name"] for row in rows] == ["bare, jax", "ours, one LoRA", "ours, 3 experts"]


def test_a_lesson_is_trained_and_timed():
    found = training._work({"lesson": "tiny", "peer": False, "first": 3, "count": 2, "steps": 2})
    assert found.keys() == {"wall", "cpu", "setup"} and min(found.values()) > 0


def test_one_program_is_compared_with_all_runs():
    run = {"wall": 2.0, "cpu": 3.0, "setup": 1.0, "process": 4.0}
    long = {"wall": 16.0, "cpu": 12.0, "setup": 1.0, "process": 16.0}
    made = {
        state: {"together": [long], "alone": [run, run, run | {"wall": 9.0}]} for state in training.STATES
    }
    made["cold"]["peft"] = [run | {"wall": 4.0}]
    found = training._told(made)
    assert found["ratio"]["cold"] == {"wall": 0.5, "cpu": 0.25}
    assert found["processes"]["warm"] == 0.25
    assert found["over_peft"]["cold"]["one alone"]["wall"] == 0.5
    assert found["over_peft"]["warm"]["one of all"]["wall"] == 0.25


@pytest.mark.slow
def test_memory_and_training_in_processes_of_their_own():
    points = list(memory.part(False, [bench_case.SIZE], (), ()))
    runs = list(training.part(False, ["tiny"], 1, steps=2))
    results = bench_case.results({"memory": points, "training": runs})
    shown = {table.key: table.rows for table in tables.tables(results)}
    assert len(shown["training"]) == 2 and 0 < runs[0]["ratio"]["warm"]["wall"] < 1
    assert not memory.available() or len(shown["memory"]) > 10


def test_some_parts_are_run_again_and_the_others_stay(tmp_path, monkeypatch, capsys, parts):
    out = tmp_path / "deep" / "results.json"
    made = {name: lambda name=name: iter(parts[name]) for name in ("layer", "merging")}
    monkeypatch.setattr(__main__, "makers", lambda rates, peers: made)
    monkeypatch.setattr(__main__.machine, "rates", lambda: bench_case.RATES)
    for name in made:
        __main__.main(__main__.Config(parts=(name,), out=out))
    saved = json.loads(out.read_text())
    assert set(saved["parts"]) == {"layer", "merging"} and not saved["complete"]
    assert {"date", "versions", "processor", "cores", "rates", "seconds"} <= saved.keys()
    assert {goal["verdict"] for goal in saved["goals"]} == {"not measured: a failure"}


def test_all_parts_have_a_maker_and_points():
    assert tuple(__main__.makers(bench_case.RATES, False)) == __main__.PARTS
    from benchmarks import points

    sizes = [(point.size, point.back) for point in points.grid()]
    assert {size.e for size, _ in sizes} == {4, 8, 32, 128, 256}
    assert {size.k for size, _ in sizes} == {1, 2, 4}
    assert {size.n for size, _ in sizes} == {1, 8, 64, 512, 2048}
    assert {size.d for size, _ in sizes} == {384, 1024, 2048, 4096}
    titles = [str(point) for point in points.grid()]
    assert len(set(titles)) == len(titles)


def test_without_peers_no_torch_is_wanted(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    titles = [title for title, *_ in quick.makers()]
    assert len(set(titles)) == len(titles) >= 10
    assert next(quick.makers())[1]()
