"""Tables in a document: each in its place, and none without one."""

import re
from pathlib import Path

import bench_case
import pytest

from benchmarks.report import written
from benchmarks.tables import Table, cell, milliseconds
from moejax.types import UserError

DOCUMENT = Path(__file__).parents[2] / "docs" / "PERFORMANCE.md"
KEYS = ("about", "goals", "layer", "peers", "decode", "model", "memory", "training", "merging")


def test_a_table_goes_between_its_markers_and_nowhere_else():
    markers = [f"<!-- bench:{key}:{side} -->" for key in ("about", "goals") for side in ("begin", "end")]
    text = "\n".join(["before", markers[0], "old", *markers[1:], "after", ""])
    found = written(text, bench_case.results({}))
    assert "old" not in found and found.startswith("before\n") and found.endswith("\nafter\n")
    assert "| layer (512 tokens, " in found and "1.5 minutes" in found
    assert written(found, bench_case.results({})) == found


def test_a_table_without_a_place_is_named():
    with pytest.raises(UserError, match="no place for the table 'about'.*bench:about:begin"):
        written("nothing here", bench_case.results({}))


def test_the_document_has_a_place_for_every_table():
    text = DOCUMENT.read_text(encoding="utf-8")
    assert re.findall(r"<!-- bench:(\w+):begin -->", text) == re.findall(r"<!-- bench:(\w+):end -->", text)
    assert set(re.findall(r"<!-- bench:(\w+):begin -->", text)) == set(KEYS)


def test_cells():
    assert cell({"wall": [1.061, 1.04, 1.09], "cpu": [1.052, 1, 1]}) == "1.06 [1.04, 1.09] / 1.05"
    assert cell(None) == milliseconds(None) == "–"
    assert milliseconds({"wall": 12.34, "cpu": 0.01234}) == "12.3 / 0.0123"
    assert Table("a", "b", [], []).note == ""
