"""Cost and quality in the report: panels with a random line, numbers, and nothing that breaks the page."""

import re

from report_case import METRICS, Page, records, results

from moejax.report.cost_quality import cost_quality
from moejax.report.page import page


def cell(**changes):
    return {
        "share": [0.0, 0.5, 1.0], "accuracy": [0.5, 0.7, 0.75], "cost": [1.0, 1.5, 2.0], "apgr": 0.625,
        "cpt": {"20": 0.125, "50": 0.3, "80": 0.5}, "undefined": None, "called": 0.5, "accuracy_there": 0.7,
    } | changes  # fmt: skip


def given(name="bob", label="routellm", **changes):
    found = results()
    pair = {"strong": name, "weak": "base", "price": {"strong": 2.0, "weak": 1.0}}
    pair |= {"held_in": {group: cell(**changes) for group in found["groups"]}, "held_out": None}
    row = next(row for row in found["rows"] if "not_applicable" not in row)
    row |= {"label": label, "curves": pair}
    return found


def test_a_panel_has_the_curve_a_random_line_and_the_own_threshold():
    text = cost_quality(given())
    read, groups = Page(text), len(results()["groups"])
    assert read.values("class").count("curve") == 2 * groups  # the line, and its mark in the legend
    assert text.count("<title>a random choice") == groups and read.tags.count("circle") == groups
    assert "strong bob (price 2), weak base (price 1)" in read.text
    assert ".625" in read.text and "12.5 %" in read.text
    line = re.search(r'<line class="zero" x1="([\d.]+)" y1="([\d.]+)" x2="([\d.]+)" y2="([\d.]+)"', text)
    x0, y0, x1, y1 = map(float, line.groups())
    first, *_, last = re.search(r'points="([^"]+)" class="curve"', text)[1].split()
    assert first == f"{x0},{y0}" and last == f"{x1},{y1}" and x0 < x1 and y0 > y1


def test_what_is_undefined_is_said():
    why = "the strong member is no better here"
    text = cost_quality(given(apgr=None, undefined=why, accuracy=[0.5, 0.6, 0.5]))
    assert f'<td colspan="4" class="why">undefined: {why}</td>' in text and Page(text).values("colspan")


def test_the_page_has_the_part_where_a_row_chooses_and_only_there():
    assert "Cost and quality" in Page(page(given(), METRICS, records())).text
    assert "Cost and quality" not in page(results(), METRICS, records()) and cost_quality(results()) is None


def test_names_are_escaped():
    hostile = "<script>alert(1)</script>\"'\x1b"
    text = page(given(hostile, hostile), METRICS, records())
    Page(text)
    assert "<script" not in text and "\x1b" not in text and "&lt;script&gt;" in text
