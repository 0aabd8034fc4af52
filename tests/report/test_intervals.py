"""Differences to uniform: one panel a split and group, on one scale, with the numbers as text."""

from report_case import Page, results, row

from moejax.report.intervals import intervals


def test_every_method_but_uniform_has_a_dot_in_each_panel_it_has_numbers_for():
    text = intervals(results())
    page = Page(text)
    assert (
        page.tags.count("figure") == 2 and page.tags.count("circle") == 3 + 2
    )  # own_expert has no held-out cell
    assert "arrow: +10.0 [-5.0, +20.0]" in page.text and "uniform:" not in page.text
    assert page.values("aria-label") == [f"held-{x}: difference to uniform" for x in ("in", "out")]


def test_dots_lie_where_their_numbers_are():
    page = Page(intervals({"groups": [""], "rows": [row("a", held_out=None)]}))
    (low, dot, high) = page.values("x1")[-1], page.values("cx")[0], page.values("x2")[-1]
    assert page.text.count("points above the uniform merge") == 1
    # marks at -10, 0, 10, 20: the zero line is a third of the way, the dot two thirds
    zero = page.values("x1")[[c for c in page.values("class") if c in ("grid", "zero")].index("zero")]
    assert [said for said in page.said if said in ("−10", "0", "+10", "+20")] == ["−10", "0", "+10", "+20"]
    left, right = page.values("x1")[0], page.values("x1")[3]
    assert [float(x) for x in (left, zero, right)] == [130.0, 200.7, 342.0]
    assert [float(x) for x in (low, dot, high)] == [165.3, 271.3, 342.0]


def test_without_the_uniform_merge_a_sentence():
    cell = {"": {"balanced_accuracy": 0.5, "against_uniform": None}}
    found = {"groups": [""], "rows": [row("arrow", held_in=cell, held_out=None)]}
    assert "No row of the table is the uniform merge" in intervals(found)
    assert "No row of the table is the uniform merge" in intervals({})
