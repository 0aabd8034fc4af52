"""The public workflow runs make targets and nothing else, and .ci/run runs the same ones."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTIONS = {"actions/checkout", "actions/setup-python"}


def targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def steps() -> list[dict]:
    jobs = [job for path in WORKFLOWS for job in yaml.safe_load(path.read_text())["jobs"].values()]
    return [step for job in jobs for step in job["steps"]]


def public() -> list[str]:
    return [step["run"].removeprefix("make ") for step in steps() if "run" in step]


def own(word: str = "(?:step|show)") -> list[str]:
    return re.findall(rf"^{word} ([a-z-]+)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)


def test_every_public_step_is_a_make_target():
    assert public()
    assert set(public()) <= targets()
    assert {step["uses"].split("@")[0] for step in steps() if "uses" in step} == ACTIONS
    assert all("run" in step or "uses" in step for step in steps())


def test_both_run_the_same_targets():
    assert sorted(public()) == sorted(own())
    assert {"lint", "test", "test-slow", "demo", "check-readme", "notebooks", "parity"} == set(own("step"))


def test_what_is_only_shown_is_the_same_in_both():
    shown = [step["run"].removeprefix("make ") for step in steps() if step.get("continue-on-error")]
    assert sorted(shown) == sorted(own("show")) == ["bench-quick"]


def test_both_ends_of_the_supported_range_are_checked():
    for path in WORKFLOWS:
        matrix = yaml.safe_load(path.read_text())["jobs"]["check"]["strategy"]["matrix"]
        assert [(row["python"], row["jax"]) for row in matrix["include"]] == [
            ("3.11", "0.10"),
            ("3.12", "0.11"),
        ]
        assert matrix["python"] == ["3.11", "3.12"]
        assert matrix["os"] == ["ubuntu-latest", "macos-latest"]


def test_the_hooks_are_make_targets():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    entries = [hook["entry"] for repo in hooks for hook in repo["hooks"]]
    assert entries
    assert all(repo["repo"] == "local" for repo in hooks)
    assert {entry.removeprefix("make ") for entry in entries} <= targets()


def test_the_pinned_peers_are_the_same_everywhere():
    setup = (ROOT / "setup.cfg").read_text()
    (torch,) = re.findall(r"^TORCH := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert f"\n    {torch}\n" in setup
