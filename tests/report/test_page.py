"""The page as a whole: self-contained, escaped, and never broken by what is missing."""

import copy
import re

import pytest
from report_case import MADE, METRICS, Page, record, records, results, row

from moejax.report.page import page

HOSTILE = "<script>alert(1)</script>\"'\x1b[31m\x07\u202e"
ALLOWED = {"details", "div", "dl", "figure", "html", "main", "nav", "section", "svg", "table"}


def whole():
    return page(results(), METRICS, records(), MADE)


def test_it_is_one_whole_page_with_all_its_parts():
    text = whole()
    read = Page(text)
    assert text.startswith("<!doctype html>") and set(read.tags) >= ALLOWED
    for said in ("Report of small, seed 0", "5 methods on 2 held-in and 1 held-out tasks; seed 0.", "Routing",
                 MADE["command"], MADE["date"], "d4ta", "ba5e", "c0de", "abc+changes", "jax 0.10.2", "cpu × 1",
                 '"source": "tiny"'):  # fmt: skip
        assert said in read.text, said
    assert 'class="missing"' not in text


def test_links_lead_to_sections_of_the_page():
    read = Page(whole())
    ids = read.values("id")
    assert read.values("href") == [f"#{name}" for name in ids] and len(set(ids)) == len(ids) == 7


def test_it_asks_for_nothing_and_runs_nothing():
    text = whole()
    read = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "base", "form"} & set(read.tags)
    assert not [name for name, _ in read.attributes if name.startswith("on") or name == "src"]
    assert "http:" not in text and "https:" not in text and "url(" not in text
    assert "default-src 'none'" in text and "script-src" not in text


def test_nothing_hostile_gets_through():
    found = results()
    found["title"] = HOSTILE
    found["rows"] = [
        row(
            HOSTILE, needs=[HOSTILE], extras=[HOSTILE], chosen={HOSTILE: HOSTILE}, options={HOSTILE: HOSTILE}
        ),
        {"label": HOSTILE + "2", "row": "x", "sight": 0, "needs": [], "not_applicable": HOSTILE},
        {"label": HOSTILE + "3", "row": "y", "sight": 0, "needs": [], "not_applicable": HOSTILE},
    ]
    found["rows"][0]["tasks"] = {HOSTILE: {HOSTILE: {"balanced_accuracy": 0.5}}}
    found["tasks"] = {HOSTILE: [HOSTILE]}
    found["groups"] = [HOSTILE]
    found["rows"][0]["held_in"] = {HOSTILE: found["rows"][0]["held_in"][""]}
    found |= {"config": {HOSTILE: HOSTILE}, "keys": dict.fromkeys(("data", "base", "code"), HOSTILE)}
    found |= {"versions": {HOSTILE: HOSTILE}, "device": HOSTILE, "commit": HOSTILE, "settled_on": HOSTILE}
    routed = record(experts=(HOSTILE, "bob"))
    routed["tasks"] = {HOSTILE: [0.5, 0.5], "b": [0.2, 0.8]}
    routed["sites"][HOSTILE] = routed["sites"].pop("q")
    routed["texts"][0] |= {"task": HOSTILE, "answer": HOSTILE, "tokens": [HOSTILE, f" {HOSTILE}", "a", "b"]}
    metrics = [{"stage": f"routers/{HOSTILE}@{HOSTILE}", "loop": HOSTILE, "step": 0, "loss": 1.0}]
    made = {"command": HOSTILE, "date": HOSTILE, "note": HOSTILE}
    text = page(found, metrics, {HOSTILE: routed, "y": {"none": HOSTILE}}, made)
    read = Page(text)
    assert "<script" not in text.lower() and "script" not in read.tags
    assert not set(text) & {chr(code) for code in range(32) if code != 10} and "\u202e" not in text
    shown = read.text + " ".join(value or "" for _, value in read.attributes)
    assert shown.count("<script>alert(1)</script>") > 40 and "\\x1b[31m\\x07\\u202e" in shown


@pytest.mark.parametrize("name", sorted(results()))
def test_a_part_of_the_results_that_is_missing_breaks_nothing(name):
    some = results()
    del some[name]
    Page(page(some, METRICS, records(), MADE))
    Page(page(some))


@pytest.mark.parametrize("name", sorted(row("arrow")))
def test_a_part_of_a_row_that_is_missing_breaks_nothing(name):
    some = copy.deepcopy(results())
    for one in some["rows"]:
        one.pop(name, None)
    Page(page(some, METRICS, records(), MADE))


def test_from_nothing_comes_a_page_that_says_what_is_missing():
    text = page({})
    assert len(re.findall('class="missing"', text)) >= 6
    assert "Report of a run" in Page(text).text
