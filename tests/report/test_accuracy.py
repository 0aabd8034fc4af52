"""Accuracy by task: a map a group, tasks in their parts, dashes where a method has no answer."""

import re

from report_case import Page, results, row

from moejax.report.accuracy import accuracy, task_parts


def cells(**values):
    return {group: {"balanced_accuracy": value} for group, value in values.items()}


def test_a_map_for_each_group_on_one_scale():
    found = {
        "groups": ["seen", "unseen"],
        "tasks": {"held_in": ["a"], "held_out": ["b"]},
        "rows": [
            row("one", tasks={"a": cells(seen=0.42, unseen=0.5), "b": cells(seen=0.98)}),
            row("two", tasks={"b": cells(seen=0.6, unseen=0.7)}),
        ],
    }
    text = accuracy(found)
    said = Page(text).text
    assert said.index("seen rows") < said.index("unseen rows") and said.count("held-out") == 2
    assert said.count(".40") == 2 and said.count("1.00") == 2  # both legends, rounded outwards
    shown = re.findall(r'<td class="\w+">([^<]*)</td>', text)
    assert shown == [".42", ".98", "–", ".60", ".50", "–", "–", ".70"]


def test_one_group_has_no_name_and_a_map_of_its_own():
    said = Page(accuracy(results())).text
    assert "Balanced accuracy" in said and " rows" not in said and said.count("ann") == 1
    assert [name in said for name in ("uniform", "phatgoose", "mole")] == [True, True, False]


def test_tasks_come_as_the_results_say_or_as_they_are_met():
    assert task_parts(results()) == [("held-in", ["ann", "bob"]), ("held-out", ["new"])]
    old = results()
    del old["tasks"]
    assert task_parts(old) == [("", ["ann", "bob", "new"])]
    assert "held-in" not in accuracy(old) and "ann" in accuracy(old)


def test_without_answers_a_sentence():
    assert "no accuracies by task" in accuracy({}) and "no accuracies" in accuracy({"rows": [{"label": "a"}]})
