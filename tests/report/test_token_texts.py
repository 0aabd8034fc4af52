"""Texts by token: colours, opacity, numbers where another expert begins, titles, spaces."""

import re

from report_case import Page, record, records, results

from moejax.report.colours import PALETTE
from moejax.report.tokens import tokens


def drawn(one=None):
    found = one or record()
    return tokens({"rows": [{"label": "arrow", "row": "arrow"}]}, {"arrow": found})


def test_each_token_has_its_experts_colour_and_its_share_of_the_largest_weight():
    text = drawn()
    found = re.findall(r'class="token" style="--c:(#\w+);--w:([\d.]+)"', text)
    assert found == [(PALETTE[0], "0.50"), (PALETTE[1], "1.00"), (PALETTE[1], "0.75")]
    page = Page(text)
    assert page.values("title") == ["ann .40", "bob .80", "bob .60", "no expert"]
    assert "full colour: weight .80" in page.text and "right answer: yes" in page.text


def test_a_number_stands_where_another_expert_begins():
    assert re.findall(r"<sup>(\d+)</sup>(\w+)", drawn()) == [("1", "a"), ("2", "cat")]


def test_pieces_of_a_word_stand_together():
    plain = re.sub(r"<sup>\d+</sup>|<[^>]+>", "", re.search(r'<p class="tokens">(.*?)</p>', drawn())[1])
    assert plain == "a cats sat"


def test_the_legend_names_the_experts_that_are_there():
    many = record(experts=[f"e{i}" for i in range(20)])
    many["texts"][0]["expert"] = [3, 3, 19, None]
    page = Page(drawn(many))
    legend = page.text.split("full colour")[0]
    assert "e3" in legend and "e19" in legend and "e0" not in legend
    assert f"--c:{PALETTE[3]};--w:1.00" in page.values("style")  # 19 repeats the colour, never the number
    assert legend.split() == ["arrow", "4", "e3", "20", "e19"] or "20" in legend.split()


def test_the_first_method_is_open_and_others_on_demand():
    page = Page(tokens(results(), records()))
    assert page.tags.count("details") == 2 and page.values("open") == [""]


def test_without_weights_by_token_a_sentence():
    assert "No method here has weights of its own for each token" in drawn(record("request"))
    assert "No method" in tokens({}, {})
