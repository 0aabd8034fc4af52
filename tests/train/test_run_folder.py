"""A run folder: who may open it, what it refuses, what is done, what is written."""

import json
import math
import os
import signal
import subprocess
import sys
import textwrap
from typing import ClassVar

import pytest

from moejax.train import code_version as code_version_
from moejax.train import metrics, run_folder
from moejax.train.differences import differences
from moejax.train.run_folder import open_run, read_json, write_json
from moejax.types import UserError

CONFIG = {"seed": 0, "experts": {"rank": 8, "targets": ("q", "v")}, "evaluation": {"batch": 4, "shots": 2}}


def reopened(folder, config=None, **options):
    with open_run(folder, config or CONFIG, **options) as run:
        return run


def changed(**fields):
    return {**CONFIG, **fields}


def test_a_folder_says_what_made_it(tmp_path):
    with open_run(tmp_path / "a" / "b", CONFIG) as run:
        run.bind(data="d1", base="b1")
    record = json.loads((tmp_path / "a" / "b" / "config.json").read_text())
    assert record["config"]["experts"] == {"rank": 8, "targets": ["q", "v"]}
    assert record["keys"] == {"data": "d1", "base": "b1", "code": code_version_.code_version()}
    reopened(tmp_path / "a" / "b")


def test_another_config_is_refused_with_every_field_that_differs(tmp_path):
    reopened(tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    other = changed(experts={"rank": 16, "targets": ("q",)}, seed=1, fresh=True)
    with pytest.raises(UserError) as refusal:
        reopened(tmp_path, other)
    for difference in (
        "experts.rank: 8 there, 16 here",
        "experts.targets: ['q', 'v'] there, ['q'] here",
        "seed: 0 there, 1 here",
        "fresh: nothing there, True here",
        "give another --run",
    ):
        assert difference in str(refusal.value)
    assert "evaluation" not in str(refusal.value)
    assert (tmp_path / "config.json").read_bytes() == before


def test_free_fields_may_differ_and_are_kept_up_to_date(tmp_path):
    reopened(tmp_path)
    other = changed(evaluation={"batch": 8, "shots": 2})
    with pytest.raises(UserError, match="evaluation.batch: 4 there, 8 here"):
        reopened(tmp_path, other)
    reopened(tmp_path, other, free=("evaluation.batch",))
    assert read_json(tmp_path / "config.json")["config"]["evaluation"]["batch"] == 8
    reopened(tmp_path, changed(evaluation={"shots": 9}), free=("evaluation",))


def test_other_data_or_another_base_is_refused(tmp_path):
    with open_run(tmp_path, CONFIG) as run:
        run.bind(data="d1")
        run.bind(base="b1")
        with pytest.raises(UserError, match="data: d1 there, d2 here"):
            run.bind(data="d2", base="b1")
    with open_run(tmp_path, CONFIG) as run:
        run.bind(data="d1", base="b1")
        with pytest.raises(UserError, match="base: b1 there, b2 here"):
            run.bind(base="b2")
    assert read_json(tmp_path / "config.json")["keys"]["base"] == "b1"


def test_other_code_is_refused_unless_accepted(tmp_path, monkeypatch):
    with open_run(tmp_path, CONFIG) as run:
        run.bind(data="d1")
    monkeypatch.setattr(run_folder, "code_version", lambda: "newer")
    with pytest.raises(UserError, match="code: .* there, newer here.*--accept-code"):
        reopened(tmp_path)
    with pytest.raises(UserError) as refusal:
        reopened(tmp_path, changed(seed=1))
    assert "accept-code" not in str(refusal.value)  # it alone would not help
    with pytest.raises(UserError, match="seed: 0 there, 1 here"):
        reopened(tmp_path, changed(seed=1), accept_code=True)
    reopened(tmp_path, accept_code=True)
    reopened(tmp_path)
    assert read_json(tmp_path / "config.json")["keys"] == {"code": "newer", "data": "d1"}


def test_the_code_version_follows_the_sources(tmp_path, monkeypatch):
    package = tmp_path / "package"
    (package / "train").mkdir(parents=True)
    monkeypatch.setattr(code_version_, "__file__", str(package / "train" / "code_version.py"))
    seen = []
    for name, text in (("a.py", "1"), ("a.py", "2"), ("train/b.py", "2"), ("c.txt", "no code")):
        (package / name).write_text(text)
        seen.append(code_version_.code_version.__wrapped__())
    assert len(set(seen)) == 3
    assert seen[2] == seen[3]
    assert all(len(version) == 12 for version in seen)


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "photo.png").write_text("mine")
    with pytest.raises(UserError, match=r"no run folder: it holds photo.png and no config.json"):
        reopened(tmp_path)
    model = tmp_path / "model"
    model.mkdir()
    for text in ('{"hidden_size": 384}', "[]"):
        (model / "config.json").write_text(text)
        with pytest.raises(UserError, match="config.json is of something else"):
            reopened(model)
        assert (model / "config.json").read_text() == text
    (model / "config.json").write_text('{"config"')
    with pytest.raises(UserError, match="config.json is not JSON"):
        reopened(model)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/run cannot be made"):
        reopened(tmp_path / "file" / "run")


def test_a_second_process_is_refused_until_the_first_ends(tmp_path):
    with open_run(tmp_path, CONFIG), pytest.raises(UserError, match=f"in use by process {os.getpid()}"):
        reopened(tmp_path)
    reopened(tmp_path)


HOLD = """
import sys, time
from pathlib import Path
from moejax.experts.lock import locked
with locked(Path(sys.argv[1]), Path(sys.argv[1]).parent, "wait"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_killed_process_holds_the_folder_no_more(tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLD), str(tmp_path / "lock")],
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "held\n"
            with pytest.raises(UserError, match=f"in use by process {child.pid}"):
                reopened(tmp_path)
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait(10)
    reopened(tmp_path)


def test_a_lock_names_its_process_and_nothing_of_the_one_before(tmp_path):
    reopened(tmp_path)
    (tmp_path / "lock").write_text("7 and more that an old process left")
    with open_run(tmp_path, CONFIG):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
    assert (tmp_path / "lock").read_text() == ""


def test_the_lock_is_let_go_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), open_run(tmp_path, CONFIG):
        raise ZeroDivisionError
    reopened(tmp_path)


def test_a_pools_dropped_experts_outlive_the_sweep(tmp_path):
    reopened(tmp_path)
    kept, half = (tmp_path / "experts" / name for name in (".moejax/kept/3", ".ann.x1/new"))
    for folder in (kept, half):
        folder.mkdir(parents=True)
        (folder / ".hidden").write_text("")
    reopened(tmp_path)
    assert (kept / ".hidden").exists() and not half.parent.exists()


def test_a_stage_is_done_under_its_key_alone(tmp_path):
    with open_run(tmp_path, CONFIG) as run:
        assert run.done("experts") is None
        run.mark("experts", {"steps": 3}, key={"rank": 8, "targets": ("q",)})
        run.mark("routers/arrow(factor)")
    with open_run(tmp_path, CONFIG) as run:
        assert run.done("experts", {"targets": ["q"], "rank": 8}) == {"steps": 3}
        assert run.done("experts", {"rank": 16}) is None
        assert run.done("experts") is None
        assert run.done("routers/arrow(factor)") == {}
        assert run.done("routers/arrow") is None
        run.mark("experts", {"steps": 4}, key={"rank": 16})
        assert run.done("experts", {"rank": 16}) == {"steps": 4}
        assert run.done("experts", {"rank": 8, "targets": ["q"]}) is None


def test_paths_stay_inside(tmp_path):
    run = reopened(tmp_path)
    assert run.expert("sst2") == tmp_path / "experts" / "sst2"
    assert run.router("arrow(factor, k=2)") == tmp_path / "routers" / "arrow(factor, k=2)"
    assert run.router("lorahub", "mpqa") == tmp_path / "routers" / "lorahub@mpqa"
    assert run.checkpoints == tmp_path / "checkpoints"
    for name in ("..", ".", "", "a/b", "../b", "/etc", "a\\b", "a\0b"):
        with pytest.raises(UserError, match="it leads elsewhere"):
            run.expert(name)
    for stage in ("../x", "a/../../x", "/x"):
        with pytest.raises(UserError, match="it leads elsewhere"):
            run.mark(stage)


def test_a_seed_takes_what_another_seed_of_the_same_code_has(tmp_path):
    for name in ("seed-1", "seed-2", "other"):
        reopened(tmp_path / name)
    (tmp_path / "seed-1" / "features-ab.npy").write_bytes(b"numbers")
    with open_run(tmp_path / "seed-2", CONFIG) as run:
        assert not run.share("features-cd.npy").exists()
        assert os.path.samefile(run.share("features-ab.npy"), tmp_path / "seed-1" / "features-ab.npy")
        assert run.share("features-ab.npy").read_bytes() == b"numbers"  # it is there
    with open_run(tmp_path / "other", CONFIG) as run:  # no seed of that run
        assert not run.share("features-ab.npy").exists()
    made = read_json(tmp_path / "seed-1" / "config.json")
    write_json(tmp_path / "seed-1" / "config.json", made | {"keys": {"code": "of yesterday"}})
    (tmp_path / "seed-2" / "features-ab.npy").unlink()
    with open_run(tmp_path / "seed-2", CONFIG) as run:
        assert not run.share("features-ab.npy").exists()


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = write_json(tmp_path / "deep" / "a.json", {"x": 1, "π": [True, None]})
    assert read_json(path) == {"x": 1, "π": [True, None]}
    for bad in ({"x": object()}, {"x": math.nan}):
        with pytest.raises((TypeError, ValueError)):
            write_json(path, bad)
    monkeypatch.setattr(os, "replace", lambda *names: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_json(path, {"x": 2})
    assert read_json(path) == {"x": 1, "π": [True, None]}
    assert os.listdir(path.parent) == ["a.json"]


def test_results_are_a_file(tmp_path):
    with open_run(tmp_path, CONFIG) as run:
        run.finish({"rows": [1]})
    assert read_json(tmp_path / "results.json") == {"rows": [1]}


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_metrics_are_there_at_once_and_go_on(tmp_path):
    with open_run(tmp_path, CONFIG) as run:
        run.log({"loop": "experts", "step": 0, "loss": 0.5})
        assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == [(0, 0.5)]
        run.log({"loss": math.inf, "name": "π"})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"time": 1, "los')
    with open_run(tmp_path, CONFIG) as run:
        run.log({"step": 2})
    found = lines(tmp_path)
    assert [line.get("step") for line in found] == [0, None, 2]
    assert found[1]["loss"] is None
    assert found[1]["name"] == "π"
    assert all(line["time"] > 1e9 for line in found)


class Board:
    """tensorboardX's writer, which remembers what it was given; `lines` are those of all writers."""

    lines: ClassVar[list] = []

    def __init__(self, folder):
        self.lines.append(folder)

    def add_scalar(self, name, value, step, walltime):
        assert walltime > 1e9
        self.lines.append((name, value, step))

    def close(self):
        self.lines.append("closed")


@pytest.fixture
def board(monkeypatch):
    module = type(sys)("tensorboardX")
    monkeypatch.setattr(module, "SummaryWriter", Board, raising=False)
    monkeypatch.setitem(sys.modules, "tensorboardX", module)
    monkeypatch.setattr(metrics, "find_spec", lambda name: name == "tensorboardX")
    monkeypatch.setattr(Board, "lines", [])
    return Board


def test_tensorboard_gets_the_numbers_of_steps(tmp_path, board):
    with open_run(tmp_path, CONFIG) as run:
        run.log({"stage": "experts", "loop": "gates", "step": 3, "loss": 0.5, "name": "words are left out"})
        run.log({"loss": 0.5})
        run.log({"step": 4, "rows": 2, "bad": math.nan})
    assert board.lines == [
        str(tmp_path / "tensorboard"), ("experts/gates/loss", 0.5, 3), ("run/rows", 2, 4), "closed"
    ]  # fmt: skip


def test_tensorboard_shows_no_step_twice_after_a_cut(tmp_path, board):
    with open_run(tmp_path, CONFIG) as run:
        (tmp_path / "tensorboard").mkdir()
        (tmp_path / "tensorboard" / "events").write_text("of before")
        for step in range(3):
            run.log({"loop": "a", "step": step, "loss": 0.5})
        board.lines.clear()
        run.forget(1, loop="a")
        run.log({"loop": "a", "step": 1, "loss": 0.25})
        assert not (tmp_path / "tensorboard" / "events").exists()
    assert board.lines == [
        "closed", str(tmp_path / "tensorboard"), ("a/loss", 0.5, 0), ("a/loss", 0.25, 1), "closed"
    ]  # fmt: skip


def test_differences_are_short():
    assert differences({"a": "x" * 100}, {"a": 1}) == [f"a: {'x' * 57}... there, 1 here"]
    assert differences({"a": {"b": 1}}, {"a": 2}) == ["a: {'b': 1} there, 2 here"]
    assert differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 2, "c": 3}}, free=("a.b",)) == [
        "a.c: 2 there, 3 here"
    ]
    assert differences({"a": 1}, {"a": 1.0}) == []
