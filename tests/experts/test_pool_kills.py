"""A pool command that is killed at any moment, its mending too: the pool is as before or as after, never between."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import tiny

from moejax.experts import pool_folder
from moejax.experts.change import undoable
from moejax.experts.files import write
from moejax.experts.journal import HIDDEN

SCRIPT = Path(__file__).parents[1] / "kill_each_step.py"
CASES = {  # what was done before, and what is killed; ann is in the pool, cy comes to it
    "add": ((), ("add", "cy")),
    "drop": ((), ("drop", "ann")),
    "rename": ((), ("rename", "ann", "zoe")),
    "undo add": ((("add", "cy"),), ("undo",)),
    "undo drop": ((("drop", "ann"),), ("undo",)),
    "undo rename": ((("rename", "ann", "zoe"),), ("undo",)),
}


class Killed(NamedTuple):
    """The pool before and after the command, lines of its history before, and the world at each kill."""

    before: dict
    after: dict
    lines: int
    worlds: list
    effects: list


def state(pool):
    """name -> file -> bytes, of what `read_pool` would see."""
    found = [folder for folder in pool.iterdir() if folder.is_dir() and not folder.name.startswith(".")]
    return {folder.name: {file.name: file.read_bytes() for file in folder.iterdir()} for folder in found}


def do(world, operation, *names):
    if operation == "add":
        return pool_folder.add(world / "pool", world / names[0], names[0])
    return getattr(pool_folder, operation)(world / "pool", *names)


def kill_all(root, mend):
    """Every case, killed at every step."""
    base, cases, killed = tiny.base("encoder"), [], {}
    for number, (case, (first, last)) in enumerate(CASES.items()):
        world, whole, out = (root / f"{kind}{number}" for kind in ("world", "whole", "out"))
        for name in ("ann", "cy"):
            write(world / name, tiny.expert(base, name), base.sites)
        for operation in (("add", "ann"), *first):
            do(world, *operation)
        shutil.copytree(world, whole)
        do(whole, *last)
        before, after = state(world / "pool"), state(whole / "pool")
        killed[case] = Killed(before, after, len(pool_folder.history(world / "pool")), out, [])
        cases.append([str(world), str(out), mend, ["pool", last[0], "pool", *last[1:]]])
    (root / "cases.json").write_text(json.dumps(cases))
    subprocess.run([sys.executable, SCRIPT, root / "cases.json"], check=True)
    for case, one in killed.items():
        worlds = sorted(one.worlds.iterdir())
        effects = max(worlds, key=lambda world: (len(world.name) == 4, world.name)) / "effects"
        killed[case] = one._replace(worlds=worlds, effects=effects.read_text().splitlines())
    return killed


@pytest.fixture(autouse=True, scope="module")
def no_power_cuts():
    """A kill needs no fsync, which takes most of the time here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="module")
def killed(tmp_path_factory, no_power_cuts):
    return kill_all(tmp_path_factory.mktemp("killed"), mend=False)


@pytest.mark.parametrize("case", CASES)
def test_a_killed_command_leaves_the_pool_as_before_or_as_after(killed, case):
    moves = [effect.split("/")[-1] for effect in killed[case].effects if effect.startswith("os.rename")]
    assert moves[0] == "intent.part" and len(moves) == 2  # the intent, then one folder
    assert len(killed[case].worlds) == len(killed[case].effects) + 1 > 7
    met = [check(world, killed[case], case) for world in killed[case].worlds]
    assert met == sorted(met) and set(met) == {False, True}  # never, and from one step on always


@pytest.mark.slow
def test_a_killed_mending_leaves_the_pool_as_it_was(tmp_path):
    for case, one in kill_all(tmp_path, mend=True).items():
        mended = [world for world in one.worlds if "." in world.name]
        assert len(mended) > 2 * len(one.effects)
        assert {check(world, one, case) for world in mended} == {False, True}


def check(world, one, case):
    """Whether the command happened; the next command keeps it so, and the history agrees."""
    found, pool = state(world / "pool"), world / "pool"
    assert found in (one.before, one.after), world.name
    happened = found == one.after
    pool_folder.look(pool)
    assert state(pool) == found, world.name
    assert len(pool_folder.history(pool)) == one.lines + happened, world.name
    assert {path.name for path in (pool / HIDDEN).iterdir()} <= {"lock", "history.jsonl", "kept"}, world.name
    if not happened:
        do(world, *CASES[case][1])
        assert state(pool) == one.after, world.name
    while undoable(pool_folder.history(pool)):
        pool_folder.undo(pool)
    assert state(pool) == {}, world.name
    kept = {file.read_bytes() for file in (pool / HIDDEN / "kept").glob("*/adapter_model.safetensors")}
    came = {files["adapter_model.safetensors"] for files in {**one.before, **one.after}.values()}
    assert kept == came, world.name
    return happened
