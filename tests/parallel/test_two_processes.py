"""Two processes on loopback, two CPU devices each: the numbers of one process, whatever is killed in between."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import shell
import tiny_folder
from conftest import cache_folder
from safetensors.numpy import load_file

ROOT = Path(__file__).parents[2]
HEARTBEAT = 10
KEPT = ("PATH", "HOME", "XDG_CACHE_HOME", "TMPDIR")


class Machines:
    """Commands of one tiny run, in folders below `root`."""

    def __init__(self, root: Path):
        self.root, self.base = root, tiny_folder.encoder(root / "base")
        self.ends: dict[int, float] = {}
        self.apart = 0.0
        """How many seconds process 0 ended after the last one, of the commands that ended last."""

    def config(self, run: str, **changes: object) -> list[str]:
        """train.py and eval.py of a run, as words."""
        path = self.root / f"{run}-{len(list(self.root.glob('*.py')))}.py"
        path.write_text(
            "from dataclasses import replace\nimport killed\n"
            f"made = killed.config({str(self.base)!r}, {str(self.root / run)!r})\n"
            f"def config(): return replace(made, **{changes!r})\n"
        )
        return [str(ROOT / "tests" / "many.py"), "--config", str(path)]

    def start(self, commands: list[list[str]], die: str = "") -> list[subprocess.Popen]:
        """One process a command; one alone is no cluster."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        many = len(commands) > 1
        env = {name: os.environ[name] for name in KEPT if name in os.environ} | {
            "PYTHONPATH": str(ROOT), "PROGRAMS": cache_folder(), "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": "2" if many else "1",
        }  # fmt: skip
        meet = [
            "--coordinator-address", f"127.0.0.1:{port}", "--num-processes", str(len(commands)),
            "--heartbeat-timeout-seconds", str(HEARTBEAT), "--initialization-timeout", "60",
        ]  # fmt: skip
        return [
            subprocess.Popen(
                [sys.executable, *command, *([*meet, "--process-id", str(p)] if many else [])],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                env=env | ({"DIE": die} if die else {}),
            )
            for p, command in enumerate(commands)
        ]  # fmt: skip

    def end(self, commands: list[list[str]], die: str = "") -> list[tuple[int, str, str]]:
        """Status, output and errors of each process, when all have come to an end."""
        children = self.start(commands, die)

        def end(child: subprocess.Popen) -> tuple[str, str]:
            texts = child.communicate(timeout=500)
            self.ends[child.pid] = time.monotonic()
            return texts

        try:
            with ThreadPoolExecutor(len(children)) as waiting:
                said = list(waiting.map(end, children))
            self.apart = self.ends[children[0].pid] - self.ends[children[-1].pid]
        finally:
            for child in children:
                child.kill()
        return [(child.returncode, ours(out), err) for child, (out, err) in zip(children, said, strict=True)]


def ours(out: str) -> str:
    """What a process printed, without the lines of the library that carries its messages."""
    return "".join(line for line in out.splitlines(keepends=True) if not line.startswith("[Gloo]"))


@pytest.fixture(scope="module")
def machines(tmp_path_factory) -> Machines:
    return Machines(tmp_path_factory.mktemp("machines"))


def arrays(run: Path) -> dict[str, dict[str, np.ndarray]]:
    """All arrays of experts, routers and answers."""
    parts = ("experts", "routers", "answers")
    files = sorted(path for part in parts for path in (run / part).rglob("*.safetensors"))
    return {str(path.relative_to(run)): load_file(path) for path in files}


@pytest.mark.slow
def test_killed_and_gone_on_with_other_numbers_of_processes_it_is_one_process(machines):
    two = [machines.config("many")] * 2
    (status, out, err), (killed, quiet, silent) = machines.end(two, die="experts:2:1:9")
    assert (killed, quiet) == (128 + 9, ""), silent
    assert status == 75, err
    assert 0 < machines.apart < HEARTBEAT + 15
    last = err.splitlines()[-1]
    found = re.fullmatch(
        r"lost process 1 \(.+\) after (\d+) s; to go on, .* by: (python .*--process-id 0)", last
    )
    assert found, err
    checkpoints = machines.root / "many" / "work" / "experts" / "checkpoints" / "experts"
    assert {path.name for path in checkpoints.iterdir()} & {"1", "2"}  # the second may be half written
    (status, _, err), *_ = machines.end(two[:1], die="gates:1:0:9")  # goes on alone, to the fits of routers
    assert status == -9, err
    (status, _, err), (other, quiet, silent) = machines.end(two, die="gates:2:1:15")  # one is told to stop
    assert (status, other, quiet) == (143, 143, ""), err + silent
    assert re.search(r"^stopped; to go on: python ", err, re.M) and "stopped" not in silent
    (status, out, err), (other, quiet, silent) = machines.end(two)
    assert (status, other, quiet) == (0, 0, ""), err + silent
    assert "report: " in out
    (status, *_, err), *_ = machines.end([machines.config("one")])
    assert status == 0, err
    found, wanted = arrays(machines.root / "many"), arrays(machines.root / "one")
    assert found.keys() == wanted.keys()
    for name, leaves in wanted.items():
        for leaf, values in leaves.items():
            np.testing.assert_allclose(
                found[name][leaf], values, rtol=2e-4, atol=2e-5, err_msg=f"{name} {leaf}"
            )
    one, other = (json.loads((machines.root / run / "results.json").read_text()) for run in ("many", "one"))
    for mine, theirs in zip(one["rows"], other["rows"], strict=True):
        assert mine["held_in"] == theirs["held_in"] and mine["held_out"] == theirs["held_out"]
    lines = [json.loads(line) for line in (machines.root / "many" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["stage"] == "experts"] == [0, 1, 2, 3]


def test_other_configurations_are_refused_by_all_at_the_start(machines):
    start = time.monotonic()
    configs = [machines.config("refused"), machines.config("refused", seed=1)]
    (status, out, err), (other, quiet, silent) = machines.end(configs)
    assert (status, other) == (2, 2), err + silent
    assert re.search(
        r"^error: config.seed is 0 in process 0 \(.+\) and 1 in process 1 \(.+\): start all", err, re.M
    )
    assert "error:" not in silent and out == quiet == ""
    assert not (machines.root / "refused").exists()
    assert time.monotonic() - start < 60


@pytest.mark.slow
def test_an_answer_is_that_of_one_process(machines):
    """generate.py: process 0 says what one process says, with experts over the devices of both."""
    root = shell.folders(machines.root / "shell")
    words = [
        str(ROOT / "generate.py"),
        "--base",
        str(root / "base"),
        "--max-new",
        "6",
        "--show-experts",
    ]
    words += [
        "--experts",
        str(root / "experts"),
        "--method",
        "arrow(k=2)",
        "the ant ",
        "a bee ",
        "cats",
    ]
    [(status, alone, err)] = machines.end([words])
    assert status == 0 and alone.count("[") >= 3, err
    (status, out, err), (other, quiet, silent) = machines.end([[*words, "--mesh.expert", "4"]] * 2)
    assert (status, other) == (0, 0), err + silent
    assert (out, quiet, silent) == (alone, "", "")
