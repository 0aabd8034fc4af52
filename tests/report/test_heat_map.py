"""Heat maps: numbers, colours, outlines, and what becomes of wide ones."""

import re

from report_case import Page

from moejax.report.heat_map import heat_map, key, short


def drawn(values, scale=(0.0, 1.0), columns=("x", "y"), **options):
    rows = [f"r{i}" for i in range(len(values))]
    text = heat_map(rows, columns, values, scale, ("layer", "expert"), "Mean weight", **options)
    return text, Page(text)


def test_every_value_has_its_colour_and_its_number():
    text, page = drawn([[0.0, 1.0], [0.5, None]])
    cells = re.findall(r'<td class="(\w+)">([^<]*)</td>', text)
    assert cells == [("v0", ".00"), ("v63", "1.00"), ("v32", ".50"), ("none", "–")]
    assert [word in page.text for word in ("layer", "expert", "Mean weight", "r0", "r1", "x", "y")] == [
        True
    ] * 7


def test_the_legend_says_both_ends():
    assert Page(key((-0.5, 2.0))).text == "−.50 2.00"


def test_parts_stand_over_their_columns_and_plain_numbers_beside():
    text, page = drawn([[0.1, 0.2]], parts=[("held-in", 1), ("held-out", 1)], beside={"entropy": [1.25]})
    assert 'colspan="1" class="part">held-in' in text
    assert '<td class="plain">1.25</td>' in text and "entropy" in page.text


def test_only_the_cells_that_are_asked_for_are_outlined():
    text, _ = drawn([[0.1, 0.2], [0.3, 0.4]], ringed=lambda row, column: (row, column) == ("r1", "x"))
    assert re.findall(r'ring">([^<]*)<', text) == [".30"]


def test_a_wide_map_has_titles_in_place_of_numbers():
    columns = [f"c{i}" for i in range(25)]
    text, page = drawn([[0.25] * 24 + [None]], columns=columns)
    assert "r0, c3: 0.250" in page.values("title") and "r0, c24: none" in page.values("title")
    assert not re.search(r">\.25<", text)
    assert page.values("class").count("heat narrow") == 1
    text, _ = drawn([[0.25] * 24], columns=columns[:24])
    assert text.count(">.25<") == 24 and "narrow" not in text


def test_numbers_in_short():
    shown = [short(x) for x in (0.0, -0.001, 0.994, 0.996, 1.0, -0.25, 12.345, -1.5)]
    assert shown == [".00", ".00", ".99", "1.00", "1.00", "−.25", "12.35", "−1.50"]
