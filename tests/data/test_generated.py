"""The generated suite: what its texts hold, what is unseen, and that a seed decides all."""

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from moejax.data.generated import SuiteConfig, generate, words
from moejax.data.tasks import SPLITS, data_hash
from moejax.data.vocabulary import KINDS
from moejax.types import UserError

SMALL = SuiteConfig(train=16, pair_train=12, validation=4, test=8)


@pytest.fixture(scope="module")
def suite():
    return generate(SMALL)


def shown(text: str, kind: str, group: str, config: SuiteConfig = SMALL) -> set[str]:
    """Values of a kind that the clauses of a text say."""
    clauses, found = text.removesuffix(".").split(", "), set()
    for value in KINDS[kind].values:
        for template in KINDS[kind].templates:
            said = [template.format(word) for word in words(config, kind, value, group)]
            found |= {value} if any(_holds(clauses, one) for one in said) else set()
    return found


def _holds(clauses: list[str], said: str) -> bool:
    parts = said.split(", ")  # a clause may hold commas itself
    return any(clauses[i : i + len(parts)] == parts for i in range(len(clauses)))


def test_vocabulary_has_enough_words_and_no_word_in_two_values():
    assert len(KINDS) >= 10
    for kind in KINDS.values():
        assert 3 <= len(kind.values) <= 5 and len(kind.templates) >= 4 and len(kind.denials) >= 2
        every = [word for value in kind.values.values() for word in value.words]
        assert len(every) == len(set(every)) and all(every)
        assert min(len(value.words) for value in kind.values.values()) >= 14


def test_suite_has_skills_and_pairs(suite):
    assert len(suite.held_in) == 10 and len(suite.held_out) == 6
    assert all(task.skills == (task.name,) for task in suite.held_in)
    for task in suite.held_out:
        assert len(task.skills) == 2 and set(task.skills) <= {one.name for one in suite.held_in}
        assert 9 <= len(task.choices) <= 16 and len(set(task.label_text)) == len(task.choices)
        assert all(KINDS[kind].question in task.instruction for kind in task.skills)


def test_a_text_shows_its_answer_and_nothing_against_it(suite):
    for task in (*suite.held_in, *suite.held_out):
        for row in (*task.rows["train"], *task.rows["test"]):
            for kind, value in zip(task.skills, row.target.split(", "), strict=True):
                assert shown(row.input, kind, row.group) == {value}


def test_texts_use_words_of_their_own_group(suite):
    for row in suite.held_in[0].rows["test"]:
        other = {"seen": "unseen", "unseen": "seen"}[row.group]
        assert not any(shown(row.input, kind, other) for kind in SMALL.kinds)


def test_splits_groups_and_counts(suite):
    for task in (*suite.held_in, *suite.held_out):
        assert {row.group for row in task.rows["train"]} == {"seen"}
        assert Counter(row.group for row in task.rows["validation"]) == {"seen": 4, "unseen": 4}
        assert Counter(row.group for row in task.rows["test"]) == {"seen": 8, "unseen": 8}
        assert [row.group for row in task.rows["test"][:4]] == ["seen", "unseen", "seen", "unseen"]
        texts = [row.input for split in SPLITS for row in task.rows[split]]
        assert len(set(texts)) == len(texts)
    assert len(suite.held_in[0].rows["train"]) == 16 and len(suite.held_out[0].rows["train"]) == 12
    assert set(Counter(row.target for row in suite.held_in[0].rows["train"]).values()) == {4}


def test_words_are_split_by_the_seed():
    first, unseen = words(SMALL, "animal", "farm", "seen"), words(SMALL, "animal", "farm", "unseen")
    assert len(first) == 9 and len(unseen) == 5 and not set(first) & set(unseen)
    assert set(words(SuiteConfig(seed=1), "animal", "farm", "seen")) != set(first)
    assert len(words(SuiteConfig(seen=0.5), "animal", "farm", "seen")) == 7


def test_the_seed_decides_all_and_python_hashing_nothing():
    code = (
        "from moejax.data.generated import SuiteConfig, generate; from moejax.data.tasks import data_hash;"
        f"suite = generate({SMALL}); print(data_hash(suite.held_in + suite.held_out))"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }  # fmt: skip
    suite = generate(SMALL)
    assert runs == {data_hash(suite.held_in + suite.held_out)}
    other = generate(replace(SMALL, seed=1))
    assert data_hash(other.held_in + other.held_out) not in runs


def test_distractors_deny_another_value():
    few = SuiteConfig(kinds=("animal", "place", "food"), pairs=(), clauses=(2, 2), train=40)
    plain, hard = generate(few), generate(replace(few, distractors=1.5))
    count = [{row.input.count(", ") + 1 for row in suite.held_in[0].rows["train"]} for suite in (plain, hard)]
    assert count == [{2}, {3, 4}]
    for row in hard.held_in[0].rows["train"]:
        assert shown(row.input, "animal", "seen") == {row.target}
        denied = [c for c in row.input.removesuffix(".").split(", ") if any(
            c == denial.format(word) for denial in KINDS["animal"].denials for value in KINDS["animal"].values
            if value != row.target for word in words(SMALL, "animal", value, "seen"))]  # fmt: skip
        assert 1 <= len(denied) <= 2


def test_label_noise_touches_training_rows_only():
    two = SuiteConfig(kinds=("animal", "place"), pairs=(), clauses=(2, 2), train=400, label_noise=0.25)
    task = generate(two).held_in[0]
    wrong = [shown(row.input, "animal", "seen") != {row.target} for row in task.rows["train"]]
    assert 0.18 < sum(wrong) / 400 < 0.32
    assert all(shown(row.input, "animal", row.group) == {row.target} for row in task.rows["test"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kinds": ("animal", "colour"), "pairs": ()}, "colour"),
        ({"kinds": ("animal", "food"), "pairs": (("animal", "place"),)}, "place"),
        ({"kinds": ("animal", "animal"), "pairs": ()}, "twice"),
        ({"pairs": (("animal", "animal"),)}, "twice"),
        ({"clauses": (1, 6)}, "clauses"),
        ({"clauses": (6, 5)}, "clauses"),
        ({"clauses": (5, 11)}, "clauses"),
        ({"label_noise": 1.0}, "label_noise"),
        ({"distractors": -1.0}, "distractors"),
        ({"seen": 1.0}, "seen"),
        ({"seen": 0.0}, "seen"),
        ({"test": 0}, "test"),
        ({"kinds": ("animal",), "pairs": (), "clauses": (1, 1), "train": 10_000}, "ask for fewer"),
    ],
)
def test_a_config_that_cannot_be_is_refused(change, said):
    with pytest.raises(UserError, match=said):
        generate(SuiteConfig(**change))


def test_public_tasks_are_nobodys_and_leave_the_others_as_they_are(suite):
    more = generate(replace(SMALL, public=8))
    assert not suite.public and data_hash(more.held_in + more.held_out) == data_hash(
        suite.held_in + suite.held_out
    )
    assert len(more.public) == 20 and all(task.name.startswith("public_") for task in more.public)
    others = {
        row.input for task in more.held_in + more.held_out for split in SPLITS for row in task.rows[split]
    }
    texts = [row.input for task in more.public for split in SPLITS for row in task.rows[split]]
    assert len(set(texts)) == len(texts) == 20 * 10 and not others & set(texts)
    targets = {frozenset(pair) for pair in SMALL.pairs}
    asked = [frozenset(task.skills) for task in more.public]
    assert len(set(asked)) == 20 and not targets & set(asked)
    assert {kind for one in asked if len(one) == 1 for kind in one} == set(SMALL.kinds)
    for task in more.public:
        assert [len(task.rows[split]) for split in SPLITS] == [8, 2, 0]
        for row in task.rows["train"]:
            for kind, value in zip(task.skills, row.target.split(", "), strict=True):
                assert shown(row.input, kind, "seen") == {value} and not shown(row.input, kind, "unseen")


def test_public_pairs_are_as_many_as_there_are():
    few = SuiteConfig(kinds=("animal", "place", "food"), pairs=(("place", "animal"),), clauses=(2, 3), train=4,
                      pair_train=4, validation=2, test=2, public=4)  # fmt: skip
    assert [task.skills for task in generate(few).public][3:] == [("animal", "food"), ("place", "food")]
    with pytest.raises(UserError, match="public not negative"):
        generate(replace(few, public=-1))
