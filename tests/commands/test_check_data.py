"""Data folders: every bad line by its number, what each task holds, and what makes its numbers mean little."""

import json

import own
import pytest

from moejax.commands.check_data import data
from moejax.models.weights import load

MOOD = {"kind": "classification", "instruction": "Good or bad?", "choices": ["good", "bad"]}


def row(number: int, split: str = "train", **changes) -> dict:
    target = "good" if number % 2 else "bad"
    return {"task": "mood", "split": split, "input": f"text {number}", "target": target} | changes


def write(folder, rows, described=None, name="mood"):
    (folder / "tasks.json").write_text(json.dumps(described or {"mood": MOOD}))
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    return folder


def plenty(split: str, start: int, count: int) -> list[dict]:
    return [row(start + n, split) for n in range(count)]


def test_every_bad_line_is_told_by_its_number(tmp_path):
    rows = [row(0), row(1, target="ugly"), row(2, split="dev"), row(3), row(4, input=" "), row(3, "test")]
    write(tmp_path, rows)
    with (tmp_path / "mood.jsonl").open("a") as file:
        file.write("{'a': 1}\n" + "[" * 100_000 + "\n")
    found = data(tmp_path)
    at = f"{tmp_path}/mood.jsonl"
    assert [fault.partition(": ")[0] for fault in found.faults] == [f"{at}:{n}" for n in (2, 3, 5, 7, 8, 6)]
    words = (
        "unknown label 'ugly'",
        "split is 'dev'",
        "input is empty",
        "not valid JSON",
        "not valid JSON",
        "also in train",
    )
    assert all(word in fault for word, fault in zip(words, found.faults, strict=True))
    assert "rows train 2, validation 0, test 1" in found.lines[0], "the good rows are told all the same"


def test_every_faulty_task_is_told_and_the_others_are_read(tmp_path):
    described = {
        "mood": MOOD, "kindless": {"instruction": "x"}, "../out": MOOD, "gone": MOOD,
        "twins": MOOD | {"label_text": {"good": "same", "bad": "same"}},
    }  # fmt: skip
    found = data(write(tmp_path, [row(0)], described))
    said = "\n".join(found.faults)
    assert len(found.faults) == 4
    for words in (
        "kindless: kind is None",
        "'../out' is no name",
        "gone.jsonl.gz: it is missing",
        "one label text, 'same'",
    ):
        assert words in said
    assert found.what == f"data folder {tmp_path}: 1 task"


@pytest.mark.parametrize(
    ("text", "words"), [(None, "tasks.json does not exist"), ("[]", "expected an object")]
)
def test_without_a_sound_tasks_json_that_is_the_fault(tmp_path, text, words):
    write(tmp_path, [row(0)])
    (tmp_path / "tasks.json").unlink()
    if text is not None:
        (tmp_path / "tasks.json").write_text(text)
    assert [words in fault for fault in data(tmp_path).faults] == [True]


def test_what_a_task_holds(tmp_path):
    rows = plenty("train", 0, 40) + plenty("validation", 50, 10) + plenty("test", 100, 120)
    found = data(write(tmp_path, rows))
    assert found.lines == [
        "mood: rows train 40, validation 10, test 120; 2 labels (bad | good); longest text 8 characters"
    ]
    assert found.warnings == [] and found.faults == []


def test_with_a_base_texts_are_counted_in_its_tokens(tmp_path):
    root = own.everything(tmp_path)
    plain, counted = data(root / "data"), data(root / "data", load(root / "base"))
    assert "characters" in plain.lines[0]
    longest = int(counted.lines[0].removesuffix(" tokens").rpartition(" ")[2])
    assert 5 < longest < 64


def warnings(tmp_path, rows, **described) -> str:
    return "\n".join(data(write(tmp_path, rows, {"mood": MOOD | described})).warnings)


def test_few_rows_and_lopsided_labels_are_warned_of(tmp_path):
    said = warnings(tmp_path, plenty("train", 0, 6) + plenty("test", 10, 25))
    assert "mood: 6 train rows are few" in said
    assert "mood: no validation rows" in said
    assert "by 25 test rows an accuracy is known to about ±20 points" in said
    assert "lopsided" not in said
    rows = [row(2 * n) for n in range(30)] + [row(1), row(3), row(5)] + plenty("test", 100, 120)
    assert "train is lopsided: 30 rows of 'bad', 3 of 'good'" in warnings(tmp_path, rows)
    rows = plenty("train", 0, 30) + plenty("test", 100, 120)
    assert "no train row has the label 'odd' or 1 more" in warnings(
        tmp_path, rows, choices=["good", "bad", "odd", "even"]
    )


def test_one_warning_of_many_tasks_is_one_line(tmp_path):
    names = [f"t{n}" for n in range(8)]
    for name in names:
        write(tmp_path, [row(n, task=name) for n in range(20)], name=name)
    (tmp_path / "tasks.json").write_text(json.dumps({name: MOOD | {"kind": "generation"} for name in names}))
    said = data(tmp_path).warnings
    assert [line.partition(": ")[0] for line in said] == ["t0, t1, t2, t3, t4, t5 and 2 more"] * 3
    assert "kind generation, which no encoder can answer" in said[2]


def test_a_file_that_nobody_names_is_told(tmp_path):
    write(tmp_path, plenty("train", 0, 20))
    (tmp_path / "mod.jsonl").write_text("")
    assert "mod.jsonl is not named in tasks.json, so nothing reads it" in data(tmp_path).warnings
