"""From answers to results: tasks, splits and groups, by hand."""

import numpy as np
import pytest

from moejax.evaluate.compare import SIGHT, Truth, measure, measured, result, score, sight
from moejax.taxonomy import GRANTS

TRUTHS = {
    "a": Truth(True, np.array([0, 0, 1, 1]), np.array(["seen", "seen", "seen", "unseen"])),
    "b": Truth(True, np.array([1, 0]), np.array(["seen", "seen"])),
    "c": Truth(False, np.array([0, 1]), np.array(["unseen", "unseen"])),
}
ANSWERS = {
    "a": {"choice": np.array([0, 1, 1, 1])},
    "b": {"choice": np.array([1, 1])},
    "c": {"choice": np.array([0, 0])},
}
UNIFORM = {
    "a": {"choice": np.array([1, 1, 1, 1])},
    "b": {"choice": np.array([1, 1])},
    "c": {"choice": np.array([0, 1])},
}


def test_numbers_are_of_the_rows_of_their_group():
    found = result(ANSWERS, UNIFORM, TRUTHS, samples=20, seed=0)
    seen, unseen = found["tasks"]["a"]["seen"], found["tasks"]["a"]["unseen"]
    assert seen == {"accuracy": pytest.approx(2 / 3), "balanced_accuracy": 0.75, "rows": 3}
    assert unseen == {"accuracy": 1.0, "balanced_accuracy": 1.0, "rows": 1}


def test_means_are_over_tasks_of_a_split_that_have_rows_of_the_group():
    found = result(ANSWERS, UNIFORM, TRUTHS, samples=20, seed=0)
    cell = found["held_in"]["seen"]
    assert cell["accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert cell["balanced_accuracy"] == pytest.approx((0.75 + 0.5) / 2)
    assert cell["against_uniform"]["difference"] == pytest.approx((1 / 3 + 0) / 2)
    assert found["held_in"]["unseen"]["accuracy"] == 1.0  # of task a alone
    assert found["held_out"].keys() == {"unseen"}
    assert found["held_out"]["unseen"]["against_uniform"]["difference"] == -0.5


def test_without_the_uniform_merge_there_is_no_interval():
    found = result(ANSWERS, None, TRUTHS, samples=20, seed=0)
    assert found["held_in"]["seen"]["against_uniform"] is None
    assert found["held_in"]["seen"]["balanced_accuracy"] == 0.625


def test_a_split_without_answers_is_none():
    found = result({"c": ANSWERS["c"]}, UNIFORM, TRUTHS, samples=20, seed=0)
    assert found["held_in"] is None and found["tasks"].keys() == {"c"}


def test_a_method_is_grouped_by_the_most_that_it_sees():
    assert sight(frozenset()) == 0
    assert sight(frozenset({"own"})) == 1
    assert sight(frozenset({"own", "expert_inputs"})) == 2
    assert sight(frozenset({"expert_labels", "target_labels"})) == 3
    assert sight(frozenset({"test_task", "target_labels"})) == 4


def test_every_grant_is_in_one_group():
    grouped = [grant for _, grants in SIGHT for grant in grants]
    assert sorted(grouped) == sorted(GRANTS)


MIXED = {
    "a": Truth(True, np.array([0, 0, 1, 1]), np.array([""] * 4)),
    "w": Truth(True, np.full(2, -1), np.array([""] * 2)),
}
DECODED = {
    "a": {
        "choice": np.array([0, 1, 1, 1]), "choice_norm": np.array([0, 0, 1, 0]), "loss": np.array([1.0, 2, 3, 2]),
        "tokens": np.array([1, 1, 1, 1]), "bytes": np.array([2, 2, 2, 2]),
    },
    "w": {
        "exact_match": np.array([1.0, 0.0]), "rouge_l": np.array([1.0, 0.5]), "loss": np.array([3.0, 5.0]),
        "tokens": np.array([1, 3]), "bytes": np.array([4, 4]),
    },
}  # fmt: skip


def test_measures_of_choices_and_written_texts_stand_in_one_cell():
    worse = {
        "a": DECODED["a"] | {"loss": DECODED["a"]["loss"] + 1},
        "w": DECODED["w"] | {"rouge_l": np.zeros(2)},
    }
    cell = result(DECODED, worse, MIXED, samples=20, seed=0)["held_in"][""]
    assert cell["accuracy"] == cell["accuracy_norm"] == 0.75 and cell["exact_match"] == 0.5
    assert cell["rouge_l"] == 0.75
    assert cell["score"] == score(cell) == (0.75 + 0.5) / 2  # of tasks, one of each kind
    assert cell["nats"] == (2 + 2) / 2 and cell["perplexity"] == pytest.approx(np.exp(2))
    assert cell["byte_nats"] == (1 + 1) / 2
    assert cell["against_uniform"] == {"difference": 0.0, "low": 0.0, "high": 0.0}
    assert cell["intervals"]["nats"] == pytest.approx({"difference": -0.5, "low": -0.5, "high": -0.5})
    assert cell["intervals"]["rouge_l"]["difference"] == 0.75


def test_the_score_is_named_by_the_kinds_of_task():
    assert measured({"classification"}) == measure({}) == "balanced accuracy"
    assert measured({"generation"}) == "exact match"
    assert measured({"generation", "classification"}) == "balanced accuracy or exact match"
    assert score({"exact_match": 0.25, "rouge_l": 1.0}) == 0.25 and score({"balanced_accuracy": 0.5}) == 0.5
