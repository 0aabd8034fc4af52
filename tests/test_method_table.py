"""The page of methods: made from cards and test results, and not out of date."""

from collections import Counter

import method_table
import pytest

from moejax.methods import TABLE
from moejax.survey import CARDS

RESULTS = """<testsuites><testsuite>
<testcase classname="tests.test_contract" name="test_jit_is_eager[arrow(factor)-encoder]"/>
<testcase classname="tests.test_contract" name="test_jit_is_eager[arrow-encoder]"/>
<testcase classname="tests.test_contract" name="test_jit_is_eager[mole-encoder]"><failure/></testcase>
<testcase classname="tests.methods.test_lorahub" name="test_hand_example"/>
<testcase classname="tests.methods.test_we_moe_deltas" name="test_zero"/>
<testcase classname="tests.train.test_search_parity" name="test_the_same_points_as_nevergrad[aim0-40]"/>
<testcase classname="tests.methods.test_adapterhub_parity" name="test_fusion"><skipped/></testcase>
</testsuite></testsuites>"""


def test_what_passed_is_counted_by_method(tmp_path):
    (tmp_path / "a.xml").write_text(RESULTS)
    contract, card, peers = method_table.counts(method_table.passed([tmp_path / "a.xml"]))
    assert (
        contract == {"arrow": 2}
        and card == {"lorahub": 1, "we_moe": 1}
        and peers == {"lorahub": "nevergrad 1.0.12"}
    )


def test_every_method_of_the_survey_and_every_row_of_ours_has_a_line():
    made = method_table.page(Counter({"arrow": 2}), Counter(), {"lorahub": "nevergrad 1.0.12"})
    lines = [line for line in made.splitlines() if line.startswith("|")][2:]
    assert len(lines) == len(CARDS) + len(TABLE.keys() - CARDS.keys())
    arrow = next(line for line in lines if "(methods/arrow.md)" in line)
    assert (
        "weights alone" in arrow and "aggregation output / factor" in arrow and arrow.endswith("| 2 | – |  |")
    )
    hub = next(line for line in lines if "methods/lorahub.md" in line)
    assert "target_labels" in hub and hub.endswith("nevergrad 1.0.12 |")
    assert sum("| not built |" in line for line in lines) == len(CARDS.keys() - TABLE.keys())
    assert "predictor mf / sw / bert (causal: not built)" in next(
        line for line in lines if "| RouteLLM |" in line
    )


def test_the_page_is_what_the_cards_say():
    made = method_table.page(Counter(), Counter(), {})
    assert method_table.without_numbers(method_table.PAGE.read_text()) == method_table.without_numbers(made)


def test_a_method_without_a_test_is_an_error(tmp_path, capsys):
    (tmp_path / "a.xml").write_text(RESULTS)
    assert method_table.main([str(tmp_path / "a.xml")]) == 1
    assert "no test of the contract passed: " in capsys.readouterr().out


@pytest.mark.parametrize("module", method_table.PEERS)
def test_the_peers_are_run_by_tests_that_are_there(module):
    assert (method_table.ROOT / f"{module.replace('.', '/')}.py").is_file()
