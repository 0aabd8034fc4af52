"""Routing: means over sites, the diagonal of own experts, what is left out and why."""

import re

import pytest
from report_case import Page, record, records, results

from moejax.report.routing import by_expert, by_layer, constant, routing, scale


def test_layers_are_means_over_the_sites_that_adapt_them():
    found = by_layer(record())
    assert found["layer"] == [0, 1]
    assert found["weight"] == [[0.75, 0.25], pytest.approx([0.3, 0.7])]
    assert found["load"] == [[1.0, 0.0], [0.25, 0.75]]
    assert found["entropy"] == pytest.approx([0.4, 0.4])


def test_own_tasks_come_first_in_the_experts_order_and_are_outlined():
    shuffled = record(experts=("bob", "ann"))
    assert list(by_expert(shuffled)) == ["bob", "ann", "new"]
    text = routing({"rows": [{"label": "arrow", "row": "arrow"}]}, {"arrow": shuffled})
    assert text.count(" ring") == 2
    told = shuffled | {"own": {"new": "ann"}}
    assert list(by_expert(told)) == ["new", "ann", "bob"]
    assert routing({"rows": [{"label": "arrow", "row": "arrow"}]}, {"arrow": told}).count(" ring") == 1


def test_each_method_has_its_maps_and_its_sites_on_demand():
    text = routing(results(), records())
    page = Page(text)
    assert page.tags.count("section") == 2 and page.tags.count("details") == 2
    assert page.tags.count("table") == 2 * (3 + 4)
    for said in (
        "Mean weight by task",
        "Mean weight by layer",
        "Load, share of tokens",
        "one choice a token",
    ):
        assert page.text.count(said) == 2
    assert "Each site: q, down" in page.text and "q: load" in page.text
    assert "over 12 test rows and the 2 sites of a layer" in page.text and "equal weights is .69" in page.text
    assert re.findall(r'<td class="plain">([^<]*)<', text.split("<details>")[0]) == [".40", ".40"]


def test_what_does_not_route_is_said():
    said = Page(routing(results(), records())).text
    assert "own_expert: nothing is routed." in said
    assert "mole: it does not apply to this pool." in said
    assert "uniform: its routing was not recorded." in said
    assert "name no method" in routing({}, {})


def test_weights_that_are_all_one_are_a_sentence():
    site = {"layers": [0], "weight": [[0.5, 0.5]], "load": [[0.5, 0.5]], "entropy": [0.69]}
    flat = record("task") | {"sites": {"q": site}, "tasks": {"ann": [0.5, 0.5]}}
    assert constant(flat) == 0.5 and constant(record()) is None
    text = routing({"rows": [{"label": "uniform", "row": "uniform"}]}, {"uniform": flat})
    assert "gives each of the 2 experts the weight .50" in text and "<table" not in text


def test_the_scale_begins_at_zero_or_below():
    assert scale([[0.2, 0.5], [0.1, 0.3]]) == (0.0, 0.5)
    assert scale([[-0.2, 0.5]]) == (-0.2, 0.5)
