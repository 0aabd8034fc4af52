"""Experts come to a pool folder, leave it, get another name; every step can be taken back down to the start."""

import json
import os
import random

import numpy as np
import pytest

from moejax.experts import pool_folder
from moejax.experts.files import read, write
from moejax.experts.folder import CONFIG, EXTRAS, INFO, PICKLE, SAMPLES, WEIGHTS, write_tensors
from moejax.experts.journal import HIDDEN
from moejax.experts.member import OnBase, examine
from moejax.experts.pool import read_pool
from moejax.types import UserError


@pytest.fixture(autouse=True)
def no_power_cuts(monkeypatch):
    """Most of the time here would go to the disk."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def source(tiny, tmp_path):
    """Folders of three experts, outside of any pool."""
    for seed, name in enumerate(("ann", "bob", "cy")):
        write(tmp_path / "source" / name, tiny.expert(name, seed=seed), tiny.sites)
    return tmp_path / "source"


@pytest.fixture
def pool(source, tmp_path):
    for name in ("ann", "bob"):
        pool_folder.add(tmp_path / "pool", source / name, name)
    return tmp_path / "pool"


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names(pool):
    return sorted(path.name for path in pool.iterdir() if not path.name.startswith("."))


def refused(function, *given, says, **named):
    """The sentence of a refusal, which leaves no trace in the pool's experts and history."""
    pool = given[0]
    before = (names(pool), pool_folder.history(pool)) if pool.is_dir() else None
    with pytest.raises(UserError, match=says) as refusal:
        function(*given, **named)
    assert "\n" not in str(refusal.value)
    assert before == ((names(pool), pool_folder.history(pool)) if pool.is_dir() else None)


def test_an_expert_is_added_as_it_is(tiny, source, tmp_path):
    before = files(source)
    member = pool_folder.add(tmp_path / "deep" / "pool", source / "ann", "zoë")
    pool = tmp_path / "deep" / "pool"
    assert names(pool) == ["zoë"] and files(pool / "zoë") == files(source / "ann")
    assert files(source) == before
    assert member.name == "zoë" and member.report is not None and member.report.name == "zoë"
    back = read_pool(pool, tiny.sites, tiny.shapes, tiny.layers, tiny.fingerprint)[0]
    assert back.names == ("zoë",)
    (change,) = pool_folder.history(pool)
    assert (change.n, change.operation, change.name, change.content) == (1, "add", "zoë", member.content)
    assert change.time.endswith("+00:00")


def test_only_files_of_an_expert_are_copied(source, tmp_path):
    for name in (
        "README.md",
        "LICENSE",
        PICKLE,
        "optimizer.pt",
        "run.py",
        ".secret",
        "adapter_model.safetensors.index.json",
    ):
        (source / "ann" / name).write_text(name)
    (source / "ann" / "checkpoints").mkdir()
    (source / "ann" / "checkpoints" / WEIGHTS).write_text("old")
    (source / "ann" / SAMPLES).write_text('{"text": "a"}\n')
    write_tensors(source / "ann" / EXTRAS, {"mean": np.ones(3)})
    pool_folder.add(tmp_path / "pool", source / "ann", "ann")
    expected = [CONFIG, WEIGHTS, INFO, EXTRAS, SAMPLES, "README.md", "LICENSE"]
    assert sorted(files(tmp_path / "pool" / "ann")) == sorted(expected)
    assert (tmp_path / "pool" / "ann" / "LICENSE").read_text() == "LICENSE"


@pytest.mark.parametrize("name", [WEIGHTS, "README.md", "notes", "checkpoints"])
def test_a_link_that_leaves_the_folder_is_refused(source, tmp_path, name):
    (source / "ann" / name).unlink(missing_ok=True)
    target = {WEIGHTS: source / "bob" / WEIGHTS, "checkpoints": source}.get(name, tmp_path / "secret")
    (source / "ann" / name).symlink_to(target)
    says = f"{name} is a symbolic link that leaves the folder"
    refused(pool_folder.add, tmp_path / "pool", source / "ann", "ann", says=says)
    assert not (tmp_path / "pool").exists()
    (source / "ann" / name).unlink()
    (source / "ann" / name).symlink_to(os.path.relpath(target, source / "ann"))
    refused(pool_folder.add, tmp_path / "pool", source / "ann", "ann", says=says)


def test_links_that_stay_inside_become_files(source, tmp_path):
    (source / "ann" / "blob").write_bytes((source / "ann" / WEIGHTS).read_bytes())
    (source / "ann" / WEIGHTS).unlink()
    (source / "ann" / WEIGHTS).symlink_to("blob")
    (source / "link").symlink_to("ann")
    pool_folder.add(tmp_path / "pool", source / "link", "ann")
    copy = tmp_path / "pool" / "ann" / WEIGHTS
    assert not copy.is_symlink() and copy.read_bytes() == (source / "ann" / "blob").read_bytes()


def test_a_bad_expert_is_refused_before_anything_is_made(source, tmp_path):
    (source / "ann" / WEIGHTS).rename(source / "ann" / PICKLE)
    refused(pool_folder.add, tmp_path / "pool", source / "ann", "ann", says="only a pickle")
    refused(pool_folder.add, tmp_path / "pool", source / "nobody", "nobody", says="nobody: no such folder")
    assert not (tmp_path / "pool").exists()


def test_with_a_base_an_expert_is_checked_against_it(tiny, source, tmp_path):
    base = OnBase(tiny.sites, tiny.shapes, "sha256:another")
    refused(
        pool_folder.add, tmp_path / "pool", source / "ann", "ann", base, says="trained on base sha256:tiny"
    )
    fewer = {module: site for module, site in tiny.sites.items() if "query" not in module}
    base = OnBase(fewer, tiny.shapes, tiny.fingerprint)
    refused(
        pool_folder.add,
        tmp_path / "pool",
        source / "ann",
        "ann",
        base,
        says="a module that the base does not have",
    )
    base = OnBase(tiny.sites, tiny.shapes, tiny.fingerprint)
    member = pool_folder.add(tmp_path / "pool", source / "ann", "ann", base)
    expert = read(source / "ann", tiny.sites, tiny.shapes, tiny.fingerprint)[0]
    assert member.hash == expert.info["hash"]


def test_a_source_that_changes_under_the_copy_is_refused(tiny, source, pool, monkeypatch):
    copy = pool_folder._copy

    def late(folder, new):
        write(folder, tiny.expert("cy", seed=9), tiny.sites)
        copy(folder, new)

    monkeypatch.setattr(pool_folder, "_copy", late)
    refused(pool_folder.add, pool, source / "cy", "cy", says="cy changed while it was copied")
    assert not (pool / HIDDEN / "new").exists()


def test_the_same_content_twice_is_a_warning(source, pool):
    member = pool_folder.add(pool, source / "ann", "zoe")
    assert (
        member.report is not None
        and "experts 'ann' and 'zoe' hold the same weights" in member.report.warnings
    )
    assert names(pool) == ["ann", "bob", "zoe"] and member.twins == ("ann",)


def test_a_broken_expert_in_the_pool_hinders_nobody(source, pool):
    (pool / "bob" / CONFIG).write_text("{")
    pool_folder.add(pool, source / "cy", "cy")
    pool_folder.rename(pool, "bob", "broken")
    pool_folder.drop(pool, "broken")
    assert [change.content is None for change in pool_folder.history(pool)] == [
        False,
        False,
        False,
        True,
        True,
    ]
    for _ in range(5):
        pool_folder.undo(pool)
    assert names(pool) == []


BAD = {
    "a/b": "cannot name an expert",
    "../x": "cannot name an expert",
    "..": "cannot name an expert",
    "": "cannot name an expert",
    "a\\b": "cannot name an expert",
    "tab\t": "cannot name an expert",
    "nul\0": "cannot name an expert",
    "rtl\u202e": "cannot name an expert",
    ".hidden": "folders that begin with a dot are passed over",
    HIDDEN: "folders that begin with a dot are passed over",
    "uniform": "a method has that name",
    "UniForm": "a method has that name",
    "bob": "has an expert 'bob' already",
    "Bob": "has an expert 'bob', from which 'Bob' differs only in case or in how accents",
    "caf\u00e9": "differs only in case or in how accents",
    "CAFE\u0301": "differs only in case or in how accents",
    "\u01f0": "differs only in case or in how accents",
    "file": "file is a file: give another name",
}


@pytest.mark.parametrize("name", BAD)
def test_bad_names_are_refused(source, pool, name):
    pool_folder.add(pool, source / "cy", "cafe\u0301")
    pool_folder.add(pool, source / "cy", "J\u030c")
    (pool / "file").write_text("no expert")
    reserved = ("base", "uniform")
    refused(pool_folder.add, pool, source / "cy", name, None, reserved, says=BAD[name])
    refused(pool_folder.rename, pool, "ann", name, reserved, says=BAD[name])


def test_a_name_may_change_its_own_case(pool):
    pool_folder.rename(pool, "ann", "Ann")
    assert names(pool) == ["Ann", "bob"]
    pool_folder.undo(pool)
    assert names(pool) == ["ann", "bob"]
    refused(pool_folder.rename, pool, "ann", "ann", says="'ann' is the expert's name already")


def test_who_is_not_there_is_named_with_the_nearest(pool):
    refused(pool_folder.drop, pool, "anna", says="has no expert 'anna' .closest: 'ann'")
    refused(pool_folder.rename, pool, "bo", "cy", says="has no expert 'bo'")
    for name in ("..", HIDDEN, "ann/..", "", "."):
        refused(pool_folder.drop, pool, name, says="has no expert")


def test_a_refusal_makes_nothing_in_what_is_no_pool(source):
    refused(pool_folder.drop, source, "nobody", says="has no expert 'nobody'")
    refused(pool_folder.rename, source, "nobody", "x", says="has no expert 'nobody'")
    refused(pool_folder.rename, source, "ann", "a/b", says="cannot name an expert")
    refused(pool_folder.undo, source, says="nothing to undo")
    assert sorted(path.name for path in source.iterdir()) == ["ann", "bob", "cy"]


def test_what_was_dropped_is_kept_and_comes_back(source, pool):
    before = files(source / "ann")
    change, kept = pool_folder.drop(pool, "ann")
    assert names(pool) == ["bob"] and files(kept) == before
    assert kept == pool / HIDDEN / "kept" / "3" and change.content == examine(source / "ann", "ann").content
    last, back = pool_folder.undo(pool)
    assert last == change and (back.operation, back.name, back.undoes) == ("undo", "ann", 3)
    assert names(pool) == ["ann", "bob"] and files(pool / "ann") == before


def test_an_undone_add_is_kept(source, pool):
    pool_folder.undo(pool)
    assert names(pool) == ["ann"] and files(pool / HIDDEN / "kept" / "3") == files(source / "bob")


def test_what_is_kept_can_be_added_again(source, pool):
    _, kept = pool_folder.drop(pool, "ann")
    pool_folder.add(pool, kept, "ann")
    assert names(pool) == ["ann", "bob"] and files(pool / "ann") == files(kept) == files(source / "ann")


def test_experts_put_there_by_hand_are_members_too(tiny, source, pool):
    """Even under names that `add` refuses: they can leave, and come back as they were."""
    for name in ("x:y", "Bob", "uniform"):
        write(pool / "tmp", tiny.expert("tmp", seed=7), tiny.sites)
        (pool / "tmp").rename(pool / name)
        pool_folder.drop(pool, name)
        pool_folder.undo(pool)
        assert name in names(pool)
        pool_folder.rename(pool, name, "fine")
        pool_folder.drop(pool, "fine")


@pytest.mark.parametrize("seed", range(4))
def test_any_sequence_can_be_undone_down_to_the_start(source, tmp_path, seed):
    """Against a model: a stack of what the pool held."""
    rng, pool = random.Random(seed), tmp_path / "pool"
    pool.mkdir()
    stack, came = [{}], set()
    for step in range(25):
        held, operation = stack[-1], rng.choice(("add", "add", "drop", "rename", "undo"))
        name, new = rng.choice([*held, "nobody"]), f"n{step}"
        if operation == "add":
            origin = rng.choice(("ann", "bob", "cy"))
            pool_folder.add(pool, source / origin, new)
            stack.append(held | {new: origin})
            came.add(origin)
        elif operation == "undo" and len(stack) > 1:
            pool_folder.undo(pool)
            stack.pop()
        elif name in held and operation == "drop":
            pool_folder.drop(pool, name)
            stack.append({other: origin for other, origin in held.items() if other != name})
        elif name in held and operation == "rename":
            pool_folder.rename(pool, name, new)
            stack.append({new if other == name else other: origin for other, origin in held.items()})
        else:
            continue
        check(pool, source, stack[-1])
    lines = (pool / HIDDEN / "history.jsonl").read_bytes()
    while len(stack) > 1:
        pool_folder.undo(pool)
        stack.pop()
        check(pool, source, stack[-1])
    refused(pool_folder.undo, pool, says="there is nothing to undo")
    assert (pool / HIDDEN / "history.jsonl").read_bytes().startswith(lines)  # lines are added, never altered
    kept = {(folder / WEIGHTS).read_bytes() for folder in (pool / HIDDEN / "kept").iterdir()}
    assert kept == {(source / origin / WEIGHTS).read_bytes() for origin in came}


def check(pool, source, held):
    assert names(pool) == sorted(held)
    for name, origin in held.items():
        assert (pool / name / WEIGHTS).read_bytes() == (source / origin / WEIGHTS).read_bytes()
    history = pool_folder.history(pool)
    assert [change.n for change in history] == list(range(1, len(history) + 1))


def test_the_history_is_lines_of_json(pool):
    pool_folder.rename(pool, "ann", "zoe")
    pool_folder.undo(pool)
    lines = [json.loads(line) for line in (pool / HIDDEN / "history.jsonl").read_text().splitlines()]
    assert [line["operation"] for line in lines] == ["add", "add", "rename", "undo"]
    assert lines[2]["name"] == "ann" and lines[2]["to"] == "zoe" and "undoes" not in lines[2]
    assert lines[3]["name"] == "zoe" and lines[3]["to"] == "ann" and lines[3]["undoes"] == 3
    assert all(line["content"].startswith("modules:") and line["time"] for line in lines)
