"""The conditions on the generated suite are noticed when they do not hold."""

import copy

import check_suite
import pytest


def results():
    def row(label, held_in, held_out):
        cell = lambda x: None if x is None else {"unseen": {"balanced_accuracy": x}}  # noqa: E731
        tasks = {"a_b": {"unseen": {"balanced_accuracy": 0.5}}}
        return {"label": label, "held_in": cell(held_in), "held_out": cell(held_out), "tasks": tasks}

    return {
        "rows": [
            row("base", 0.65, 0.40), row("multitask", 0.83, 0.59), row("own_expert", 0.86, None),
            row("best_single(test)", None, 0.42),
        ]
    }  # fmt: skip


def test_good_results_have_no_fault():
    assert check_suite.faults(results()) == []


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ((2, "held_in"), 0.79, "oracle is at 0.790"), ((2, "held_in"), 0.98, "oracle is at 0.980"),
        ((0, "held_in"), 0.75, "less than .12 below"), ((1, "held_out"), 0.47, "+0.070 from the base"),
    ],
)  # fmt: skip
def test_each_condition_is_noticed(place, value, said):
    bad = copy.deepcopy(results())
    bad["rows"][place[0]][place[1]]["unseen"]["balanced_accuracy"] = value
    assert any(said in fault for fault in check_suite.faults(bad))


def test_a_pair_that_one_expert_solves_is_noticed():
    bad = results()
    bad["rows"][3]["tasks"]["a_b"]["unseen"]["balanced_accuracy"] = 0.9
    assert check_suite.faults(bad) == ["a single expert answers a_b at 0.900"]
