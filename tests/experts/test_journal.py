"""The hidden folder of a pool: one process at a time, torn lines, strangers' links, and who may only look."""

import os
import signal
import subprocess
import sys

import pytest

from moejax.experts import journal as journals
from moejax.experts import pool_folder
from moejax.experts.change import Change, as_line
from moejax.experts.files import write
from moejax.experts.journal import HIDDEN, is_there, looked_at, make, opened
from moejax.types import UserError

HOLD = """
import sys, time
from pathlib import Path
from moejax.experts.journal import opened
with opened(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def pool(tiny, tmp_path):
    for seed, name in enumerate(("ann", "bob")):
        write(tmp_path / name, tiny.expert(name, seed=seed), tiny.sites)
    pool_folder.add(tmp_path / "pool", tmp_path / "ann", "ann")
    return tmp_path / "pool"


def everything(pool, but=("lock",)):
    """path -> bytes, of every file."""
    files = [path for path in pool.rglob("*") if path.is_file() and path.name not in but]
    return {str(path.relative_to(pool)): path.read_bytes() for path in files}


COMMANDS = {
    "add": lambda pool: pool_folder.add(pool, pool.parent / "bob", "bob"),
    "drop": lambda pool: pool_folder.drop(pool, "ann"),
    "rename": lambda pool: pool_folder.rename(pool, "ann", "zoe"),
    "undo": pool_folder.undo,
    "look": pool_folder.look,
    "history": pool_folder.history,
}


def test_a_second_process_is_refused_until_the_first_ends(pool):
    before = everything(pool)
    child = subprocess.Popen([sys.executable, "-c", HOLD, pool], stdout=subprocess.PIPE, text=True)
    with child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "held\n"
            for command in COMMANDS.values():
                with pytest.raises(UserError) as refusal:
                    command(pool)
                assert (
                    str(refusal.value) == f"{pool} is in use by process {child.pid}: wait for it, or end it"
                )
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait(10)
    assert everything(pool) == before
    for operation in ("add", "drop", "look"):
        COMMANDS[operation](pool)


@pytest.mark.parametrize("operation", ["add", "drop", "rename", "undo"])
def test_a_line_torn_anywhere_is_written_again(pool, operation):
    """The kill came while the line was written: the intent is there, the folder has moved."""
    COMMANDS[operation](pool)
    history, intent = pool / HIDDEN / "history.jsonl", pool / HIDDEN / "intent.json"
    whole, last = everything(pool), pool_folder.history(pool)[-1]
    text = as_line(last)
    assert whole[f"{HIDDEN}/history.jsonl"].endswith(text + b"\n")
    for cut in range(len(text) + 2):
        intent.write_bytes(text)
        os.truncate(history, len(whole[f"{HIDDEN}/history.jsonl"]) - cut)
        assert pool_folder.history(pool)[-1] == last, cut
        assert everything(pool) == whole, cut


def test_a_line_without_its_end_and_no_intent_is_kept(pool):
    history = pool / HIDDEN / "history.jsonl"
    whole = history.read_bytes()
    os.truncate(history, len(whole) - 1)
    pool_folder.drop(pool, "ann")
    assert history.read_bytes().startswith(whole) and len(pool_folder.history(pool)) == 2


def test_what_happened_is_seen_from_the_folders(pool):
    """An expert of the same name that came by hand after the kill changes nothing of it."""
    pool_folder.drop(pool, "ann")
    change = pool_folder.history(pool)[-1]
    (pool / HIDDEN / "intent.json").write_bytes(as_line(change))
    lines = (pool / HIDDEN / "history.jsonl").read_bytes().splitlines(keepends=True)
    (pool / HIDDEN / "history.jsonl").write_bytes(lines[0])
    (pool / "ann").mkdir()
    assert pool_folder.history(pool)[-1] == change and (pool / "ann").is_dir()


def test_what_did_not_happen_is_seen_from_the_folders(pool):
    """The copy still waits to be added, so the expert of its name is somebody's own."""
    change = Change(2, "add", "bob", None, "2026-01-02T03:04:05+00:00")
    (pool / HIDDEN / "intent.json").write_bytes(as_line(change))
    (pool / HIDDEN / "new" / "expert").mkdir(parents=True)
    (pool / "bob").mkdir()
    assert len(pool_folder.history(pool)) == 1 and (pool / "bob").is_dir()
    assert sorted(path.name for path in (pool / HIDDEN).iterdir()) == ["history.jsonl", "kept", "lock"]


def test_a_change_that_fails_leaves_nothing(pool, monkeypatch):
    before = everything(pool)

    def full(*paths):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    for operation in ("add", "drop", "rename", "undo"):
        with pytest.raises(OSError, match="No space left"):
            COMMANDS[operation](pool)
        assert everything(pool) == before
        assert not (pool / HIDDEN / "new").exists()


def test_an_interrupted_change_is_mended_at_once(pool, monkeypatch):
    def interrupted(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(journals, "_finish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pool_folder.drop(pool, "ann")
    assert (pool / HIDDEN / "intent.json").exists()  # mending was interrupted as well
    monkeypatch.undo()
    assert [change.operation for change in pool_folder.history(pool)] == ["add", "drop"]
    assert not (pool / HIDDEN / "intent.json").exists()


@pytest.mark.parametrize("name", ["lock", "history.jsonl", "intent.json", "new", "kept"])
def test_a_strangers_link_in_the_hidden_folder_is_refused(pool, tmp_path, name):
    """A pool that was downloaded could have the next command write, or clear, where the link leads."""
    victim = tmp_path / "victim"
    (victim / "deep").mkdir(parents=True)
    (victim / "precious").write_text("mine")
    target = victim if name in ("new", "kept") else victim / "precious"
    path = pool / HIDDEN / name
    if path.exists():
        path.rename(tmp_path / "away")
    path.symlink_to(target)
    for command in COMMANDS.values():
        with pytest.raises(UserError, match=f"{name} is a symbolic link, which no pool command makes"):
            command(pool)
    assert (victim / "precious").read_text() == "mine" and (victim / "deep").is_dir()


def test_a_hidden_folder_that_is_a_link_is_refused(pool, tmp_path):
    (pool / HIDDEN).rename(tmp_path / "elsewhere")
    (pool / HIDDEN).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"\.moejax is a symbolic link: put the folder itself there"):
        pool_folder.drop(pool, "ann")


def test_a_forged_intent_moves_nothing(pool, tmp_path):
    (tmp_path / "out").mkdir()
    before = everything(pool)
    for line in (b'{"n": 2, "operation": "drop", "name": "../out", "content": null, "time": ""}', b"{", b""):
        (pool / HIDDEN / "intent.json").write_bytes(line)
        with pytest.raises(UserError, match=r"intent\.json is not what a pool command wrote"):
            pool_folder.look(pool)
    (pool / HIDDEN / "intent.json").unlink()
    assert everything(pool) == before and (tmp_path / "out").is_dir()


def test_looking_writes_nothing_where_there_is_no_history(tiny, tmp_path):
    write(tmp_path / "pool" / "ann", tiny.expert("ann"), tiny.sites)
    assert [member.name for member in pool_folder.look(tmp_path / "pool")] == ["ann"]
    assert pool_folder.history(tmp_path / "pool") == ()
    assert [path.name for path in (tmp_path / "pool").iterdir()] == ["ann"]


def test_a_pool_that_may_not_be_written_can_be_looked_at(pool, monkeypatch):
    (pool / HIDDEN / "lock").unlink()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert [member.name for member in pool_folder.look(pool)] == ["ann"]
    assert len(pool_folder.history(pool)) == 1
    assert not (pool / HIDDEN / "lock").exists()


def test_no_folder_is_named(tmp_path):
    for name, command in COMMANDS.items():
        if name != "add":
            with pytest.raises(UserError, match="pool: no such folder of experts"):
                command(tmp_path / "pool")
    with looked_at(tmp_path) as journal:
        assert journal.changes == ()


def test_folders_moved_by_hand_are_named(pool):
    (pool / "ann").rename(pool / "away")
    with pytest.raises(UserError, match="ann is not there, so undo 'ann' cannot be done: move it back"):
        pool_folder.undo(pool)
    (pool / "away").rename(pool / "ann")
    pool_folder.drop(pool, "ann")
    (pool / "ann").mkdir()
    with pytest.raises(UserError, match="ann is there, so undo 'ann' cannot be done: move it away"):
        pool_folder.undo(pool)
    assert len(pool_folder.history(pool)) == 2


def test_a_change_wants_its_folder(pool):
    with opened(pool) as journal, pytest.raises(UserError, match="nobody is not there, so drop 'nobody'"):
        make(journal, "drop", "nobody", None)
    assert not is_there(pool / "nobody" / "at all")
