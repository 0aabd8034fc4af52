"""`python -m moejax check`: what a folder is taken for, and how the command ends."""

import json
import subprocess
import sys

import own
import pytest

from moejax.__main__ import run
from moejax.commands.check import kind_of
from moejax.commands.findings import Findings, plural
from moejax.types import UserError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with `base`, `experts` and `data`."""
    return own.everything(tmp_path_factory.mktemp("check"))


def check(*argv) -> int:
    """The exit status of the command."""
    try:
        return run(["check", *map(str, argv)])
    except SystemExit as end:
        return int(end.code or 0)


FILES = {
    "data": ["tasks.json", "mood.jsonl"],
    "lines without their tasks.json": ["mood.jsonl.gz"],
    "expert": ["adapter_config.json", "adapter_model.safetensors"],
    "half an expert": ["adapter_model.safetensors", "config.json"],
    "pickle": ["adapter_model.bin"],
    "experts": ["ann/adapter_config.json", "bob/notes.txt", "README.md"],
    "router": ["router.json", "router.safetensors"],
    "half a router": ["router.safetensors"],
    "run": ["config.json", "stages/experts.json", "metrics.jsonl"],
    "run without stages": ["config.json", "experts/ann/adapter_config.json"],
    "base": ["config.json", "model.safetensors", "tokenizer.json"],
    "sharded": ["model.safetensors.index.json", "model-00001-of-00002.safetensors"],
}
KINDS = {
    "lines without their tasks.json": "data", "half an expert": "expert", "pickle": "expert", "half a router": "router",
    "run without stages": "run", "sharded": "base",
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_what_a_folder_is_taken_for(tmp_path, name):
    for file in FILES[name]:
        (tmp_path / file).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / file).write_text("")
    assert kind_of(tmp_path) == KINDS.get(name, name)


def test_what_is_nothing_known_is_said_with_what_was_looked_for(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("")
    assert check(tmp_path) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"error: {tmp_path} is nothing that is known here")
    assert said.err.count("\n") == 1
    for word in ("tasks.json", "adapter_config.json", "router.json", "model.safetensors"):
        assert word in said.err
    with pytest.raises(UserError, match="is a file: give its folder"):
        kind_of(tmp_path / "notes.txt")
    with pytest.raises(UserError, match="no folder that is there"):
        kind_of(tmp_path / "nowhere")


@pytest.mark.parametrize("part", ["base", "data", "experts", "experts/ann"])
def test_fine_folders_end_with_0(root, capsys, part):
    assert check(root / part) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == "no fault found"
    assert said.err == ""


def test_a_fault_ends_with_1_and_is_counted(root, tmp_path, capsys):
    own.tasks(tmp_path)
    described = json.loads((tmp_path / "tasks.json").read_text())
    described["food"]["kind"] = "clasification"
    (tmp_path / "tasks.json").write_text(json.dumps(described))
    assert check(tmp_path) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "1 fault"
    assert any("task food: kind is 'clasification'" in line for line in lines)


def test_a_base_that_cannot_be_read_is_an_error_of_the_flag(root, capsys):
    assert check(root / "experts", "--base", root / "nowhere") == 2
    assert "there is no folder" in capsys.readouterr().err


def test_what_is_printed_cannot_steer_a_terminal(root, tmp_path, capsys):
    (tmp_path / "tasks.json").write_text(json.dumps({"mo\x1b[2Jod": {}}))
    assert check(tmp_path) == 1
    assert "\x1b" not in capsys.readouterr().out


def test_faults_beyond_the_most_are_counted():
    found = Findings("here", faults=[f"fault {n}" for n in range(23)], most=20)
    found.parts.append(Findings("within", ["a line"], ["careful"], ["broken"]))
    lines = list(found.said())
    assert lines[0] == "here"
    assert lines[1:21] == [f"  fault: fault {n}" for n in range(20)]
    assert lines[21:] == [
        "  and 3 more faults",
        "  within",
        "    a line",
        "    warning: careful",
        "    fault: broken",
    ]
    assert found.count() == 24
    assert (plural(1, "fault"), plural(0, "fault")) == ("1 fault", "0 faults")


def test_as_a_program(tmp_path):
    (tmp_path / "tasks.json").write_text("{")
    done = subprocess.run(
        [sys.executable, "-m", "moejax", "check", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "tasks.json is not valid JSON" in done.stdout
