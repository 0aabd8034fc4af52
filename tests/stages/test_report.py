"""The last stage of eval.py, in its parts: which rows are looked at, tokens as words, files that are whole."""

import numpy as np
import pytest
import tiny
from report_case import METRICS, records, results

from moejax.stages import report as report_stage
from moejax.stages.report import Parts, read_metrics, some_rows, spread, words, write


class Tokenizer:
    """Says what it is told to."""

    def __init__(self, *tokens):
        self.tokens = tokens

    def convert_ids_to_tokens(self, ids):
        return [self.tokens[i] for i in ids]


def test_names_are_spread_from_the_first_to_the_last():
    assert spread("abc", 6) == ("a", "b", "c")
    assert spread([str(i) for i in range(16)], 6) == ("0", "3", "6", "9", "12", "15")


def test_rows_are_spread_and_filled_up_with_weight_0():
    rows = tiny.rows(tiny.base("encoder"), 10)
    found = some_rows(rows, 4)
    assert np.array_equal(found.tokens, rows.whole.tokens[[0, 2, 5, 7]]) and found.weight.tolist() == [1] * 4
    few = some_rows(tiny.rows(tiny.base("encoder"), 2), 3)
    assert few.weight.tolist() == [1, 1, 0] and np.array_equal(few.tokens[2], few.tokens[0])


def test_words_have_a_space_before_what_begins_one():
    assert words(Tokenizer("[CLS]", "cat", "##s", "sat"), [0, 1, 2, 3]) == [" [CLS]", " cat", "s", " sat"]
    assert words(Tokenizer("▁the", "cat", "▁s"), [0, 1, 2]) == [" the", "cat", " s"]
    assert words(Tokenizer("Ġthe", "cat", ""), [0, 1, 2]) == [" the", "cat", ""]


def test_lines_that_are_no_record_are_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    path.write_text('{"loop": "a"}\n[1]\n{"loop": "b"\n\n{"loop": "c"}\n')
    assert read_metrics(path) == [{"loop": "a"}, {"loop": "c"}]


def test_the_report_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    parts = Parts(METRICS, records())
    path = write(tmp_path, results(), parts, "python eval.py", "A note.")
    text = path.read_text(encoding="utf-8")
    assert path == tmp_path / "report.html" and "A note." in text and "python eval.py" in text

    def fails(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(report_stage, "page", fails)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, results(), parts)
    assert path.read_text(encoding="utf-8") == text
    assert [one.name for one in tmp_path.iterdir()] == ["report.html"]
