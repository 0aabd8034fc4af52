"""A sub-tree laid over the arrays: what is named is replaced, the rest is the very same."""

from typing import NamedTuple

import pytest

from moejax.train.overlay import overlay


class Record(NamedTuple):
    a: object
    b: object


ARRAYS = {"params": {"w": 1}, "bank": Record({"q": Record(2, 3), "k": Record(4, 5)}, 6)}


def test_named_leaves_are_replaced_and_records_stay_records():
    found = overlay(ARRAYS, {"bank": {"a": {"q": {"b": 30}}}})
    assert found == {"params": {"w": 1}, "bank": Record({"q": Record(2, 30), "k": Record(4, 5)}, 6)}
    assert isinstance(found["bank"].a["q"], Record)
    assert found["params"] is ARRAYS["params"] and found["bank"].a["k"] is ARRAYS["bank"].a["k"]
    assert ARRAYS["bank"].a["q"] == Record(2, 3)


def test_nothing_laid_over_changes_nothing():
    assert overlay(ARRAYS, {}) == ARRAYS


def test_a_leaf_may_be_laid_over_a_tree():
    assert overlay(ARRAYS, {"params": 7})["params"] == 7


@pytest.mark.parametrize("wrong", [{"bnak": {}}, {"bank": {"c": 1}}, {"bank": {"a": {"v": 1}}}])
def test_a_misspelt_name_is_refused(wrong):
    with pytest.raises(KeyError, match="nothing to train at"):
        overlay(ARRAYS, wrong)
