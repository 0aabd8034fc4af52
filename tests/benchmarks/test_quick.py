"""The guard against losses: it fails on a doctored baseline, and on nothing else."""

import json
from functools import partial

import bench_case
import pytest

from benchmarks import layer, quick
from benchmarks.cases import draw

TITLE = "tiny"


@pytest.fixture
def tiny(monkeypatch):
    """One quick point in place of all."""

    def makers():
        case = draw(bench_case.SIZE)
        yield TITLE, partial(layer.entries, case), layer.OUTPUT.name

    monkeypatch.setattr(quick, "makers", makers)
    monkeypatch.setattr(quick.compare, "__defaults__", (bench_case.EFFORT,))


def baseline(path, wall, cpu):
    path.write_text(json.dumps({"ratios": {TITLE: {"wall": wall, "cpu": cpu}}}))
    return path


def test_a_doctored_baseline_fails_and_a_generous_one_does_not(tiny, tmp_path, capsys):
    assert quick.main(quick.Config(baseline=baseline(tmp_path / "low", 1e-3, 1e-3))) == 1
    assert "lost" in capsys.readouterr().out
    assert quick.main(quick.Config(baseline=baseline(tmp_path / "one", 1e3, 1e-3))) == 1
    assert quick.main(quick.Config(baseline=baseline(tmp_path / "high", 1e3, 1e3))) == 0


def test_what_is_measured_can_be_made_the_baseline(tiny, tmp_path, capsys):
    path = tmp_path / "baseline.json"
    assert quick.main(quick.Config(write=True, baseline=path)) == 0
    made = json.loads(path.read_text())
    assert made["ratios"][TITLE]["wall"] > 0 and {"date", "processor", "cores", "versions"} <= made.keys()


def test_a_loss_is_more_than_a_quarter_and_must_show_twice(tiny, monkeypatch):
    assert not quick.lost({"wall": 1.25, "cpu": 1.0}, {"wall": 1.0, "cpu": 1.0})
    assert quick.lost({"wall": 1.0, "cpu": 1.26}, {"wall": 1.0, "cpu": 1.0})
    once = iter([{"wall": 2.0, "cpu": 2.0}, {"wall": 1.1, "cpu": 1.1}])
    monkeypatch.setattr(quick, "ratio", lambda make, name, effort: next(once))
    found, gone = quick.compare({TITLE: {"wall": 1.0, "cpu": 1.0}})
    assert gone == [] and found[TITLE] == {"wall": 1.1, "cpu": 1.1}


def test_the_committed_baseline_has_every_point():
    known = json.loads(quick.BASELINE.read_text())
    assert set(known["ratios"]) == {title for title, *_ in quick.makers()}
