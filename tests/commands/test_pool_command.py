"""`python -m moejax pool`: five operations, their output, and errors of one sentence with status 2."""

import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file, save_file

from moejax.__main__ import run
from moejax.commands import pool as command
from moejax.commands import pool_listing
from moejax.commands.parse import flags
from moejax.experts import pool_folder
from moejax.experts.content_hash import content_hash
from moejax.experts.files import write
from moejax.experts.folder import CONFIG, INFO, WEIGHTS
from moejax.experts.journal import HIDDEN, opened
from moejax.experts.member import Member
from moejax.methods import TABLE
from moejax.models import minilm, weights

TIME = r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with two experts of the tiny encoder, and the encoder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    base = tiny.base("encoder")
    weights.save(base, "base")
    for name in ("ann", "bob"):
        info = {"licence": f"licence of {name}", "description": f"what {name} does"}
        expert = tiny.expert(base, name)._replace(info=info)
        write(tmp_path / "from" / name, expert, base.sites, fingerprint=base.fingerprint)
    return tmp_path


@pytest.fixture
def said(here, capsys):
    def ask(*argv):
        assert run(["pool", *argv]) == 0
        out = capsys.readouterr()
        assert out.err == ""
        return out.out.splitlines()

    return ask


@pytest.fixture
def refused(here, capsys):
    def ask(*argv):
        assert run(["pool", *argv]) == 2
        out = capsys.readouterr()
        assert out.out == "" and out.err.startswith("error: ") and out.err.count("\n") == 1
        return out.err[7:-1]

    return ask


def test_five_operations(said, here):
    added = said("add", "pool", "from/ann")
    assert added[0].startswith("added ann: 3 modules, scale 2, norm ")
    assert added[1].startswith("warning: from/ann: its recorded hash was not compared")
    assert said("add", "pool", "from/bob", "--name", "zoe")[0].startswith("added zoe: 3 modules")
    assert said("rename", "pool", "zoe", "bob") == ["renamed zoe to bob"]
    assert said("drop", "pool", "ann") == [
        f"dropped ann: kept in {os.path.join('pool', HIDDEN, 'kept', '4')}"
    ]
    assert sorted(os.listdir("pool")) == [HIDDEN, "bob"]
    assert said("undo", "pool") == ["undid change 4: drop ann"]
    assert said("undo", "pool") == ["undid change 3: rename zoe to bob"]
    assert sorted(os.listdir("pool")) == [HIDDEN, "ann", "zoe"]
    assert said("undo", "pool") == ["undid change 2: add zoe"]
    assert said("undo", "pool") == ["undid change 1: add ann"]
    assert said("list", "pool") == ["no expert"]


def test_the_list_has_a_line_for_each_expert(said):
    said("add", "pool", "from/bob")
    said("add", "pool", "from/ann")
    head, ann, bob = said("list", "pool")
    assert re.split(" {2,}", head) == [
        "name", "content", "modules", "rank", "size", "licence", "description"
    ]  # fmt: skip
    content = [member.content.partition(":")[2] for member in pool_folder.look(Path("pool"))]
    size = sum(os.path.getsize(f"pool/ann/{name}") for name in os.listdir("pool/ann")) / 1000
    assert re.split(" {2,}", ann) == [
        "ann", content[0][:12], "3", "2", f"{size:.3g} kB", "licence of ann", "what ann does"
    ]  # fmt: skip
    assert bob.split()[:2] == ["bob", content[1][:12]] and content[0] != content[1]


def test_content_that_is_there_twice_is_marked(said):
    said("add", "pool", "from/ann")
    said("add", "pool", "from/bob")
    assert said("add", "pool", "from/ann", "--name", "cy")[-1] == (
        "warning: experts 'ann' and 'cy' hold the same weights"
    )
    head, *lines = said("list", "pool")
    column = head.index("same as")
    assert [line[column:].split("  ")[0].strip() for line in lines] == ["cy", "", "ann"]
    assert [member["twins"] for member in json.loads("\n".join(said("list", "pool", "--json")))] == [
        ["cy"],
        [],
        ["ann"],
    ]


def test_a_base_checks_more(said, refused, here):
    base = tiny.base("encoder")
    added = said("add", "pool", "from/ann", "--base", "base")
    assert len(added) == 1 and added[0].startswith("added ann: 3 modules")
    info = json.loads((here / "from/bob" / INFO).read_text()) | {"base": "other"}
    (here / "from/bob" / INFO).write_text(json.dumps(info))
    assert "trained on base other, not on" in refused("add", "pool", "from/bob", "--base", "base")
    added = said("add", "pool", "from/bob", "--base", "base", "--allow-base-mismatch")
    assert "warning: from/bob/moejax.json: trained on base other" in added[1]
    lines = said("list", "pool", "--base", "base")
    assert [line.split()[0] for line in lines] == ["name", "ann", "bob", "ann:"]
    assert lines[2].startswith("bob cannot be read: pool/bob/moejax.json: trained on base other")
    ann, bob = json.loads("\n".join(said("list", "pool", "--base", "base", "--json")))
    assert ann["hash"] == content_hash(tiny.expert(base, "ann").loras) and ann["error"] is None
    assert bob["hash"] is None and "trained on base other" in bob["error"]
    lines = said("list", "pool", "--base", "base", "--allow-base-mismatch")
    assert lines[4].startswith("bob: 3 modules, scale 2, norm") and lines[5].startswith("warning: ")


def test_minilm_is_the_installed_one(here, monkeypatch):
    monkeypatch.setattr(minilm, "installed", lambda: here / "base")
    on_base = command._on_base("minilm", True)
    assert on_base is not None and on_base.allow_mismatch
    assert on_base.fingerprint == tiny.base("encoder").fingerprint
    assert command._on_base("", False) is None


def test_json_is_for_machines(said):
    said("add", "pool", "from/ann")
    (ann,) = json.loads("\n".join(said("list", "pool", "--json")))
    assert ann.pop("content").startswith("modules:") and ann.pop("size") > 1000
    assert len(ann.pop("warnings")) == 1
    assert ann == {
        "name": "ann", "hash": None, "kind": "lora", "modules": 3, "ranks": [2], "licence": "licence of ann",
        "description": "what ann does", "twins": [], "error": None,
    }  # fmt: skip


def test_the_history_is_told(said):
    assert said("list", "from", "--history") == ["no change"]
    said("add", "pool", "from/ann")
    said("rename", "pool", "ann", "zoe")
    said("undo", "pool")
    said("drop", "pool", "ann")
    lines = said("list", "pool", "--history")
    ends = [
        r"add     ann         [0-9a-f]{12}",
        r"rename  ann to zoe  [0-9a-f]{12}  undone by 3",
        r"undo 2  zoe to ann  [0-9a-f]{12}",
        r"drop    ann         [0-9a-f]{12}",
    ]
    for n, (line, end) in enumerate(zip(lines, ends, strict=True), 1):
        assert re.fullmatch(f"{n}  {TIME}  {end}", line), line
    changes = json.loads("\n".join(said("list", "pool", "--history", "--json")))
    assert [change["operation"] for change in changes] == ["add", "rename", "undo", "drop"]
    assert changes[2]["undoes"] == 2 and changes[0]["undoes"] is None


def test_an_expert_that_cannot_be_read_is_listed(said, here):
    said("add", "pool", "from/ann")
    (here / "pool" / "bad\x1b[31m\nname").mkdir()
    (here / "pool" / "empty").mkdir()
    _, ann, bad, empty = said("list", "pool")
    assert ann.startswith("ann ")
    assert bad.startswith("bad [31m name cannot be read: 'bad\\x1b[31m\\nname' cannot name an expert")
    assert empty == f"empty cannot be read: pool/empty/{CONFIG}: no such file"
    os.rename("pool/ann", "ann")
    assert len(said("list", "pool")) == 2


def test_what_strangers_wrote_is_shown_harmless(said, here):
    info = json.loads((here / "from/ann" / INFO).read_text())
    info |= {"licence": {"name": "MIT"}, "description": "red \x1b[31m\n\u202e line " + "x" * 99}
    (here / "from/ann" / INFO).write_text(json.dumps(info))
    said("add", "pool", "from/ann")
    head, ann = said("list", "pool")
    assert ann.endswith("  {'name': 'MIT'}  red [31m line " + "x" * 33 + "…")
    (found,) = json.loads("\n".join(said("list", "pool", "--json")))
    assert found["description"] == info["description"] and found["licence"] == {"name": "MIT"}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["ad", "pool"], "pool has no operation 'ad', only add, drop, list, rename, undo"),
        (["add", "pool"], "FOLDER"),
        (["add", "pool", "from/ann", "--nam", "x"], "does not know '--nam', did you mean --name?"),
        (["list", "pool", "--hist"], "did you mean --history?"),
        (["list", "pool", "--pol"], "does not know '--pol' (see"),
        (["drop", "pool", "ann", "bob"], "does not know 'bob'"),
        (["list", "nowhere"], "nowhere: no such folder of experts"),
        (["undo", "from"], "from: there is nothing to undo"),
        (["drop", "from", "an"], "from has no expert 'an' (closest: 'ann')"),
        (["add", "pool", "nowhere"], "nowhere: no such folder"),
        (["add", "pool", "from/ann", "--base", "/nowhere/base"], "there is no folder /nowhere/base"),
        (["add", "pool", "from/ann", "--allow-base-mismatch"], "says nothing without --base"),
        (["add", "from/ann/" + CONFIG, "from/ann"], "File exists"),
    ],
)
def test_errors_are_one_sentence_with_status_2(refused, argv, message):
    assert message in refused(*argv)


@pytest.mark.parametrize("name", [*sorted(TABLE), "Uniform"])
def test_no_expert_is_named_like_a_method(refused, name):
    says = "cannot name an expert: a method has that name"
    assert says in refused("add", "pool", "from/ann", "--name", name)
    assert says in refused("rename", "from", "ann", name)


def test_a_pool_in_use_is_refused(refused, said):
    said("add", "pool", "from/ann")
    with opened(Path("pool")):
        for argv in (["add", "pool", "from/bob"], ["drop", "pool", "ann"], ["rename", "pool", "ann", "b"],
                     ["undo", "pool"], ["list", "pool"], ["list", "pool", "--history"]):  # fmt: skip
            assert refused(*argv) == f"pool is in use by process {os.getpid()}: wait for it, or end it"


def test_a_disk_that_is_full_is_a_sentence(refused, said, monkeypatch):
    def full(source, target):
        raise OSError(28, "No space left on device", str(source))

    said("add", "pool", "from/ann")
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", full)
        assert "pool/ann: No space left on device: mend that" in refused("drop", "pool", "ann")
    assert len(said("list", "pool", "--history")) == 1


def test_a_name_like_an_option_comes_after_two_dashes(said):
    said("add", "pool", "from/ann", "--name=-x")
    assert said("drop", "--", "pool", "-x")[0].startswith("dropped -x")


def test_the_folder_one_stands_in_has_a_name(said, here, monkeypatch):
    monkeypatch.chdir(here / "from" / "ann")
    assert said("add", "../../pool", ".")[0].startswith("added ann:")


@pytest.mark.parametrize("base", [[], ["--base", "base"]])
def test_modules_saved_whole_are_left_aside_when_asked(said, refused, base):
    config = Path("from/ann", CONFIG)
    config.write_text(json.dumps(json.loads(config.read_text()) | {"modules_to_save": ["classifier"]}))
    file = Path("from/ann", WEIGHTS)
    save_file(load_file(file) | {"base_model.model.classifier.weight": np.ones((2, 16), np.float32)}, file)
    assert "modules_to_save is set" in refused("add", "pool", "from/ann", *base)
    lines = said("add", "pool", "from/ann", "--ignore-saved-modules", *base)
    assert lines[0].startswith("added ann: 3 modules")
    assert any("1 tensors of modules saved whole are left aside" in line for line in lines[1:])
    assert any("left aside" in line for line in said("list", "pool", "--base", "base"))


def test_usage_and_help(capsys):
    for argv in ([], ["--help"], ["-h"]):
        assert run(["pool", *argv]) == 0
        out = capsys.readouterr().out
        assert all(f"\n  {name} " in out for name in ("add", "drop", "list", "rename", "undo"))
    with pytest.raises(SystemExit) as end:
        run(["pool", "add", "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert "[OPTIONS] POOL FOLDER" in out and "--name NAME" in out and "minilm" in out
    assert list(flags(command.Add)) == ["--name", "--base", "--allow-base-mismatch", "--ignore-saved-modules"]


def test_a_listing_needs_no_base(said, monkeypatch):
    monkeypatch.setitem(sys.modules, "moejax.models.weights", None)
    assert said("add", "pool", "from/ann")


def test_sizes_have_three_digits():
    sizes = (0, 12, 999, 1000, 12_345, 999_499, 999_500, 5e6, 7.25e9, 3e12)
    assert [pool_listing.size(int(count)) for count in sizes] == [
        "0 B", "12 B", "999 B", "1 kB", "12.3 kB", "999 kB", "1 MB", "5 MB", "7.25 GB", "3000 GB"
    ]  # fmt: skip
    assert pool_listing.short(None) == "unreadable" and pool_listing.table([]) == "no expert"
    assert pool_listing.as_json(Member("x", error="why"))["modules"] is None
