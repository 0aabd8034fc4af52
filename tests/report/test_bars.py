"""Bars: as long as the scores are, one for each method that has a score."""

import pytest
from report_case import Page, results, row

from moejax.report.bars import bars


def test_every_method_with_a_score_has_a_bar_in_each_panel():
    page = Page(bars(results()))
    assert page.tags.count("figure") == 2
    assert page.tags.count("rect") == 4 + 3  # mole has no score, own_expert none for held-out tasks
    assert page.values("aria-label") == [f"held-{x}: balanced accuracy of each method" for x in ("in", "out")]


@pytest.mark.parametrize(
    ("score", "width", "said"), [(0.0, 0.0, ".000"), (0.25, 49.0, ".250"), (1.0, 196.0, "1.00")]
)
def test_a_bar_is_as_long_as_its_score(score, width, said):
    cell = {"": {"balanced_accuracy": score}}
    page = Page(bars({"groups": [""], "rows": [row("a", held_in=cell, held_out=None)]}))
    assert [float(x) for x in page.values("width")] == [width]
    assert f"a: {score:.3f}" in page.said and said in page.said
    assert float(page.values("x")[-2]) == 130 + width + 4  # the number stands at the bar's end


def test_the_measure_is_named():
    found = results() | {"measure": "exact match"}
    assert "exact match" in bars(found) and "balanced accuracy" not in bars(found)


def test_without_scores_a_sentence():
    assert "no scores" in bars({}) and "<rect" not in bars({})
