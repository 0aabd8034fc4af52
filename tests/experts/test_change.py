"""Lines of a pool's history: what comes back, and what no command wrote."""

import json

import pytest

from moejax.experts.change import Change, as_line, parse, read_changes, undoable
from moejax.types import UserError

TIME = "2026-01-02T03:04:05+00:00"
CHANGES = (
    Change(1, "add", "ann", "modules:1", TIME),
    Change(2, "add", "b\udcff", "modules:2", TIME),
    Change(3, "rename", "ann", "modules:1", TIME, to="zoë"),
    Change(4, "undo", "zoë", "modules:1", TIME, to="ann", undoes=3),
    Change(5, "drop", "ann", None, TIME),
    Change(6, "undo", "ann", None, TIME, undoes=5),
    Change(7, "undo", "b\udcff", "modules:2", TIME, undoes=2),
)


def test_lines_come_back(tmp_path):
    (tmp_path / "history").write_bytes(b"".join(as_line(change) + b"\n" for change in CHANGES))
    assert read_changes(tmp_path / "history") == CHANGES
    assert read_changes(tmp_path / "nothing") == ()


def test_a_line_says_what_matters_and_no_more():
    assert json.loads(as_line(CHANGES[0])) == {
        "n": 1, "operation": "add", "name": "ann", "content": "modules:1", "time": TIME
    }  # fmt: skip
    assert json.loads(as_line(CHANGES[4]))["content"] is None


def test_the_last_standing_change_can_be_undone():
    left = [undoable(CHANGES[:n]) for n in range(8)]
    assert [change and change.n for change in left] == [None, 1, 2, 3, 2, 5, 2, 1]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b"\xff",
        b"[" * 100_000,
        {"n": 1},
        {"n": 8},
        {"n": True},
        {"n": "3"},
        {"mood": "sunny"},
        {"operation": "erase"},
        {"operation": ["add"]},
        {"operation": "rename"},
        {"operation": "undo"},
        {"to": "zoe"},
        {"undoes": 2},
        {"name": ".."},
        {"name": ".moejax"},
        {"name": ""},
        {"name": "a/b"},
        {"name": "/etc"},
        {"name": "nul\0"},
        {"name": 3},
        {"operation": "rename", "to": "../out"},
        {"operation": "rename", "to": 7},
        {"operation": "undo", "undoes": 1},
        {"operation": "undo", "undoes": 3},
        {"operation": "undo", "undoes": 2.0},
        {"operation": "undo", "undoes": -1},
        {"content": 5},
        {"time": None},
    ],
)
def test_what_no_command_wrote_is_refused(line):
    """Change 3, after two that were added; a forged line would move folders."""
    if isinstance(line, dict):
        line = json.dumps(
            {"n": 3, "operation": "drop", "name": "ann", "content": None, "time": TIME} | line
        ).encode()
    with pytest.raises(UserError, match="FILE, line 3 is not what a pool command wrote"):
        parse(line, CHANGES[:2], "FILE, line 3")


def test_the_forged_line_is_named(tmp_path):
    lines = [as_line(CHANGES[0]), as_line(CHANGES[2])]
    (tmp_path / "history").write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(UserError, match="history, line 2 is not"):
        read_changes(tmp_path / "history")


def test_nothing_is_undone_twice():
    with pytest.raises(UserError):
        parse(as_line(Change(8, "undo", "ann", None, TIME, undoes=5)), CHANGES, "FILE")
    again = Change(8, "undo", "ann", "modules:1", TIME, undoes=1)
    assert parse(as_line(again), CHANGES, "FILE") == again
    empty = (*CHANGES, again)
    with pytest.raises(UserError):
        parse(as_line(Change(9, "undo", "ann", None, TIME, undoes=1)), empty, "FILE")
