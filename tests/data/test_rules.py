"""Lookup rules: answers follow tables, no test text is in train, few words, many texts."""

from dataclasses import replace

import pytest

from moejax.data.rules import RulesConfig, rules, table
from moejax.data.tasks import SPLITS
from moejax.data.word_tokenizer import END, word_tokenizer
from moejax.types import UserError

SMALL = RulesConfig(3, 3, 2, 2, 8, 5, 20, 6, 4, 10)


def test_every_answer_is_what_the_rules_have_for_the_keys():
    made = rules(SMALL)
    assert [len(part) for part in made] == [3, 2, 4]
    for task in (*made.held_in, *made.held_out, *made.public):
        first, second = (table(SMALL, rule) for rule in task.instruction.split())
        for split in SPLITS:
            for row in task.rows[split]:
                a, b = row.input.split()
                assert row.target == f"{first[a]} {second[b]}"


def test_held_in_asks_one_rule_held_out_two_of_them_and_public_others():
    made = rules(SMALL)
    own = {task.name for task in made.held_in}
    assert all(task.instruction == f"{task.name} {task.name}" for task in made.held_in)
    for task in made.held_out:
        a, b = task.instruction.split()
        assert {a, b} <= own and a != b and task.skills == (a, b)
    assert not own & {word for task in made.public for word in task.instruction.split()}


def test_no_test_text_was_seen_and_sizes_are_as_asked():
    for task in (*(made := rules(SMALL)).held_in, *made.held_out):
        texts = {split: [row.input for row in task.rows[split]] for split in SPLITS}
        assert len(set(texts["train"] + texts["validation"] + texts["test"])) == sum(map(len, texts.values()))
        assert len(texts["test"]) == 10 and len(texts["train"]) == (20 if task in made.held_in else 6)


def test_everything_follows_from_the_seed():
    assert rules(SMALL) == rules(SMALL) != rules(replace(SMALL, seed=4))


@pytest.mark.parametrize(
    ("change", "said"),
    [({"keys": 3}, "34 texts of a task, but 3 keys make 9"), ({"values": 99}, "values is 99: expected 2 to 13"),
     ({"rules": 1}, "at least 2"), ({"test": 0}, "at least 1"), ({"public": -1}, "at least 2 and 0")],
)  # fmt: skip
def test_what_cannot_be_made_is_said(change, said):
    with pytest.raises(UserError, match=said):
        rules(replace(SMALL, **change))


def test_a_word_is_a_token_and_a_line_break_too(tmp_path):
    from moejax.models.folder import read_tokenizer

    made = rules(SMALL)
    word_tokenizer(made.held_in).save_pretrained(tmp_path)
    tokenizer = read_tokenizer(tmp_path)
    row = made.held_in[0].rows["test"][0]
    ids = tokenizer(f"{row.input}\n{row.instruction}\n", add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == [*row.input.split(), "\n", *row.instruction.split(), "\n"]
    assert tokenizer.unk_token_id not in ids and tokenizer.eos_token == END
    answer = tokenizer(row.target, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode([*answer, tokenizer.eos_token_id], skip_special_tokens=True) == row.target
    assert tokenizer("unheard", add_special_tokens=False)["input_ids"] == [tokenizer.unk_token_id]
