"""A part in a notebook: whole markup, and rules that reach nothing outside it."""

import re

from report_case import Page, results

from moejax.report.bars import bars
from moejax.report.html import tag
from moejax.report.shown import Shown


def shown(part) -> str:
    return Shown(part)._repr_html_()


def test_the_part_stands_in_a_box_of_its_own():
    part = bars(results())
    page = Page(shown(part))
    assert page.tags[:2] == ["style", "div"] and page.values("class")[0] == "moejax"
    assert shown(part).endswith(f"{part}</div>")


def test_every_rule_is_within_the_box():
    (rules,) = re.findall(r"<style>(.*)</style>", shown(tag("p", "a")), re.DOTALL)
    depth, outside = 0, ""
    for letter in rules:
        depth -= letter == "}"
        outside += letter if depth == 0 else ""
        depth += letter == "{"
        assert depth >= 0
    assert outside.replace("}", "{").split("{") == [".moejax", "", ""] and depth == 0


def test_what_holds_for_the_page_holds_for_the_box():
    rules = shown(tag("p", "a"))
    assert not re.search(r"(?<![\w-])(:root|body)\b", rules)
    assert "&{color-scheme:light dark" in rules and ".heat tbody th{" in rules
