"""Whose task is whose: by name, by what an expert says of itself, and by what the user says."""

import numpy as np
import pytest
import tiny

from moejax.contract import Rows, Split
from moejax.evaluate.grants import Grants
from moejax.evaluate.owners import (
    NoRows,
    OwnData,
    experts_of,
    said,
    said_tasks,
    split_tasks,
    tasks_of,
)
from moejax.types import NotApplicable

TASKS = ("animal", "place", "food", "mood")


def test_held_in_is_what_an_expert_is_named_like_or_says():
    assert split_tasks(TASKS, {"animal": None, "ann": "food"}) == (("animal", "food"), ("place", "mood"))
    assert split_tasks(TASKS, {"animal": "mood"}) == (("animal", "mood"), ("place", "food")), (
        "both: never held out"
    )
    assert split_tasks(TASKS, {"cy": "elsewhere"}) == ((), TASKS)


def test_what_is_given_stays():
    experts = {"animal": None, "ann": "food"}
    assert split_tasks(TASKS, experts, held_in=("mood",)) == (("mood",), ("animal", "place", "food"))
    assert split_tasks(TASKS, experts, held_out=("food",)) == (("animal",), ("food",))
    assert split_tasks(TASKS, experts, ("mood",), ("food",)) == (("mood",), ("food",))


def test_an_experts_task_is_the_one_it_says_before_the_one_of_its_name():
    experts = {"animal": "mood", "ann": "food", "place": "elsewhere", "cy": None}
    assert tasks_of(experts, TASKS) == {"animal": "mood", "ann": "food", "place": "place"}
    assert tasks_of(experts, ("animal",)) == {"animal": "animal"}


def test_a_tasks_expert_is_the_one_of_its_name_before_the_first():
    assert experts_of({"ann": "food", "bob": "food", "cy": "mood"}) == {"food": "ann", "mood": "cy"}
    assert experts_of({"ann": "food", "food": "food", "zoe": "food"}) == {"food": "food"}


def test_what_an_expert_says_must_be_a_text():
    pool = tiny.pool(tiny.base("encoder"), "ann", "bob")
    for info, task in zip(pool.infos, ("food", ["food"]), strict=True):
        info["task"] = task
    assert said_tasks(pool) == {"ann": "food", "bob": None}


def test_the_user_is_told_who_is_whose_and_what_does_not_go_together():
    experts = {"animal": None, "ann": "food", "cy": "elsewhere", "place": None}
    lines = list(said(experts, tasks_of(experts, ("animal", "food")), ("animal", "food", "mood"), ("place",)))
    assert lines == [
        "held in: animal (expert animal), food (expert ann), mood",
        "held out: place",
        "expert cy has no task in the data, which lacks elsewhere",
        "expert place has no task in the data",
        "warning: place is held out, but expert place is for it",
    ]
    assert list(said({}, {}, (), ())) == ["held in: no task", "held out: no task"]


def test_rows_that_are_not_there_say_so_when_they_are_wanted():
    rows = tiny.rows(tiny.base("encoder"), 4)
    missing = NoRows("task food has no validation rows")
    assert isinstance(missing, Rows)
    grants = Grants(frozenset({"expert_labels"}), OwnData(ann=Split(rows, missing)))
    split = grants.expert_labels("ann")
    assert len(split.train) == 4
    for want in (lambda: len(split.validation), lambda: split.validation.take(np.arange(2))):
        with pytest.raises(NotApplicable, match="task food has no validation rows"):
            want()
    with pytest.raises(NotApplicable, match="expert bob has no task in the data"):
        grants.expert_labels("bob")
