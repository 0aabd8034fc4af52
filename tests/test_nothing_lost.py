"""A run that is killed at any moment, or inside any save, and started again ends in the same bits."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_folder
from conftest import cache_folder

from moejax.cli import main
from moejax.stages.scene import _check_room
from moejax.train.run_folder import open_run
from moejax.types import UserError

ROOT = Path(__file__).parents[1]
SAVES = (
    "generated-", "features-", "metrics", "work/experts/checkpoints", "work/experts/experts", "experts/food",
    "stages/experts.json", "moejax_extras", "routers/token_gate", "router.json", "answers/", "stages/answers",
    "results.json",
)  # fmt: skip
"""Parts of the paths that name each kind of save, in the order in which a run comes to them."""
OF_A_BASE = (
    "work/base/checkpoints", "work/base/base", "base/model.safetensors", "base/config.json", "stages/base.json",
    "answers/",
)  # fmt: skip
"""Those of a run that trains its own base."""


class Runs:
    """Runs of one configuration in folders below `root`."""

    def __init__(self, root: Path, base: Path | str | None = None):
        self.root, self.base = root, base or tiny_folder.encoder(root / "base")

    def start(self, run: str, *what: str) -> subprocess.Popen:
        """tests/killed.py, begun; it has imported everything when it says that it is ready."""
        words = [
            sys.executable,
            str(ROOT / "tests" / "killed.py"),
            str(self.base),
            str(self.root / run),
            *what,
        ]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "PROGRAMS": cache_folder()}
        child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
        assert child.stdout is not None and child.stdout.readline() == "ready\n", child.communicate()
        return child

    def end(self, run: str, *what: str) -> None:
        """Let it come to its end."""
        child = self.start(run, *what)
        _, err = child.communicate(timeout=300)
        assert child.returncode == 0, err


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def whole(runs):
    """Everything that a run leaves which was never stopped, and how many seconds it took."""
    runs.end("first")  # compiles
    start = time.monotonic()
    child = runs.start("whole")
    ready = time.monotonic()
    child.communicate()
    assert child.returncode == 0 and ready > start
    return left(runs.root / "whole"), time.monotonic() - ready


def left(run: Path) -> dict:
    """What a run leaves, without what may differ: times, and the folder's own name."""
    found: dict = {}
    for part in ("base", "experts", "routers", "answers"):
        for path in sorted((run / part).rglob("*")):
            if path.is_file():
                found[str(path.relative_to(run))] = path.read_bytes()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines = [
        line for line in lines if line["stage"] != "compiling"
    ]  # what a command compiled, not what it made
    found["metrics"] = [{name: value for name, value in line.items() if name != "time"} for line in lines]
    results = json.loads((run / "results.json").read_text())
    for row in results["rows"]:
        del row["cost"]["fit_seconds"], row["cost"]["time"]
    del results["config"]["run"], results["title"]
    found["results"] = results
    return found


def check(run: Path, wanted: dict) -> None:
    """The same bits, and nothing half written left."""
    found = left(run)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name] == value, f"{name} differs"
    strays = [p for p in run.rglob("*") if p.name.startswith(".") or p.suffix == ".part" or "tmp" in p.name]
    assert strays == []
    assert not [p for p in (run / "work").rglob("*") if p.is_file()]


def cut_off(runs: Runs, parts: tuple[str, ...], wanted: dict) -> None:
    """A run that is copied inside each kind of save and goes on from each copy ends in the same bits every time."""
    runs.end("saves", *parts)
    for run in ("saves", *(f"saves-cut/{part.strip('/').replace('/', '-')}" for part in parts)):
        check(runs.root / run, wanted)


@pytest.mark.slow
def test_killed_inside_each_kind_of_save(runs, whole):
    cut_off(runs, SAVES, whole[0])
    assert [line["step"] for line in whole[0]["metrics"] if line["stage"] == "experts"] == [0, 1, 2, 3]


@pytest.mark.slow
def test_a_base_in_training_is_killed_inside_each_kind_of_save(tmp_path):
    runs = Runs(tmp_path, "trained")
    runs.end("whole")
    wanted = left(tmp_path / "whole")
    cut_off(runs, OF_A_BASE, wanted)
    assert [line["step"] for line in wanted["metrics"] if line["stage"] == "base"] == [0, 1, 2, 3]
    assert wanted["base/model.safetensors"]


def killed_at_moments(runs, run: str, moments: int, seconds: float, seed: int) -> int:
    """Kill a run again and again, each time after a share of its time; how often it was still running."""
    shares, hit = np.random.default_rng(seed).uniform(0.3, 1.2, moments), 0
    for share in shares:
        child = runs.start(run)
        time.sleep(share * seconds / moments)
        child.kill()
        child.communicate()
        hit += child.returncode == -9
    return hit


@pytest.mark.slow
def test_killed_at_twenty_moments(runs, whole):
    assert killed_at_moments(runs, "many", 20, whole[1], seed=1) >= 15
    runs.end("many")
    check(runs.root / "many", whole[0])


@pytest.mark.parametrize("limit", [3_000, pytest.param(20_000, marks=pytest.mark.slow), 100_000])
def test_a_full_disk_ends_in_one_sentence(runs, limit):
    """A file that may not grow beyond `limit` bytes: what is met first is a data file, a program, the features."""
    child = runs.start(f"full-{limit}", f"limit={limit}")
    _, err = child.communicate(timeout=300)
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert child.returncode == 2 and len(lines) == 1, err
    assert "Traceback" not in err and "what was saved before is whole" in lines[0]


def test_too_little_room_is_said_before_the_start(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 300_000_000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    _check_room(tmp_path / "features.npy", 90_000_000)
    with pytest.raises(UserError, match=r"features.npy would take 110 MB .*, but 300 MB are free"):
        _check_room(tmp_path / "features.npy", 110_000_000)
    (tmp_path / "features.npy").write_bytes(b"")
    _check_room(tmp_path / "features.npy", 110_000_000)  # it is there


def test_a_path_that_cannot_be_written_is_said_in_one_sentence(tmp_path, capsys):
    (tmp_path / "file").write_text("")

    def run(config):
        with open_run(config.run, {}):
            raise AssertionError

    line = ["--config", str(ROOT / "configs" / "quickstart.py"), "--run", str(tmp_path / "file" / "run")]
    assert main(run, line, "train.py") == 2
    err = capsys.readouterr().err
    assert err.startswith("error: the run folder") and "cannot be made (Not a directory)" in err
    assert len(err.splitlines()) == 1
