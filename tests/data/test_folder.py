"""The documented JSONL form: what is read comes back, and what is wrong is said in one sentence."""

import gzip
import json
import re

import pytest

from moejax.data.folder import read_folder, write_folder
from moejax.types import UserError

MOOD = {
    "kind": "classification", "cluster": "mood", "instruction": "Good or bad?",
    "choices": ["good", "bad"], "label_text": {"good": "this is good", "bad": "this is bad"},
}  # fmt: skip
ROWS = [
    {"task": "mood", "split": "train", "input": "lovely day", "target": "good"},
    {"task": "mood", "split": "validation", "input": "awful", "target": "bad"},
    {"task": "mood", "split": "test", "input": "dreadful", "target": "bad"},
]


def write(folder, rows=ROWS, described=None, name="mood.jsonl"):
    (folder / "tasks.json").write_text(json.dumps({"mood": MOOD} if described is None else described))
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def said(folder, names=None) -> str:
    with pytest.raises(UserError) as fault:
        read_folder(folder, names)
    message = str(fault.value)
    assert "\n" not in message
    return message.replace(str(folder), "DIR")


def test_a_task_is_read(tmp_path):
    (task,) = read_folder(write(tmp_path))
    assert (task.name, task.kind, task.cluster, task.instruction) == (
        "mood", "classification", "mood", "Good or bad?",
    )  # fmt: skip
    assert task.choices == ("good", "bad") and task.label_text == ("this is good", "this is bad")
    assert [len(task.rows[split]) for split in ("train", "validation", "test")] == [1, 1, 1]
    assert task.rows["train"][0].input == "lovely day" and task.rows["train"][0].instruction == "Good or bad?"


def test_what_is_written_is_read_back(tmp_path, review, animals):
    write_folder([review, animals], tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "animals.jsonl.gz", "review.jsonl.gz", "tasks.json",
    ]  # fmt: skip
    back = {task.name: task for task in read_folder(tmp_path)}
    assert back == {"review": review, "animals": animals}
    assert read_folder(tmp_path, ["animals"]) == (animals,)
    first = (tmp_path / "review.jsonl.gz").read_bytes()
    write_folder([review], tmp_path)
    assert (tmp_path / "review.jsonl.gz").read_bytes() == first


def test_a_label_without_phrase_is_its_own(tmp_path):
    (task,) = read_folder(write(tmp_path, described={"mood": MOOD | {"label_text": {"bad": "awful"}}}))
    assert task.label_text == ("good", "awful")


def test_no_tasks_json(tmp_path):
    assert "DIR/tasks.json does not exist" in said(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"mood": 1}'])
def test_tasks_json_is_wrong(tmp_path, text):
    write(tmp_path)
    (tmp_path / "tasks.json").write_text(text)
    assert re.search("DIR/tasks.json(: expected an object| is not valid JSON)", said(tmp_path))


def test_a_named_task_that_is_lacking_gets_a_suggestion(tmp_path):
    assert said(write(tmp_path), ["moood"]) == "DIR has no task 'moood'; did you mean mood?"
    assert said(tmp_path, ["xyz"]) == "DIR has no task 'xyz'; it has mood"


@pytest.mark.parametrize("name", ["../mood", "a/b", "..", ".", "", "a\\b", "/etc/passwd"])
def test_a_name_that_leaves_the_folder(tmp_path, name):
    write(tmp_path, described={name: MOOD})
    assert f"{name!r} is no name for a task" in said(tmp_path)
    assert f"{name!r} is no name for a task" in said(tmp_path, [name])


def test_missing_file(tmp_path):
    write(tmp_path).joinpath("mood.jsonl").unlink()
    assert said(tmp_path) == (
        "DIR: expected mood.jsonl or mood.jsonl.gz: it is missing, though tasks.json names it"
    )
    write(tmp_path)
    write(tmp_path, name="mood.jsonl.gz")
    assert "both of them are there" in said(tmp_path)


@pytest.mark.parametrize("damage", [lambda raw: raw[:-9], lambda raw: raw[:12], lambda raw: b"plain text"])
def test_truncated_gz(tmp_path, damage):
    write(tmp_path).joinpath("mood.jsonl").unlink()
    whole = gzip.compress("".join(json.dumps(row) + "\n" for row in ROWS).encode())
    (tmp_path / "mood.jsonl.gz").write_bytes(damage(whole))
    assert "DIR/mood.jsonl.gz is truncated or no gzip file" in said(tmp_path)


def test_damaged_gz(tmp_path):
    write(tmp_path).joinpath("mood.jsonl").unlink()
    whole = bytearray(gzip.compress(b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)))
    whole[20] ^= 0xFF
    (tmp_path / "mood.jsonl.gz").write_bytes(bytes(whole))
    assert "DIR/mood.jsonl.gz is " in said(tmp_path)


def test_bad_json_names_file_and_line(tmp_path):
    write(tmp_path)
    with (tmp_path / "mood.jsonl").open("a") as file:
        file.write("\n{'task': 1}\n")
    assert said(tmp_path).startswith("DIR/mood.jsonl:5: not valid JSON")


def test_not_utf8(tmp_path):
    write(tmp_path)
    (tmp_path / "mood.jsonl").write_bytes(b'{"task": "\xff"}\n')
    assert "DIR/mood.jsonl is not in UTF-8" in said(tmp_path)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"target": "ugly"}, "unknown label 'ugly'; expected one of good, bad"),
        ({"choices": ["one", "two"]}, "unknown label 'bad'; expected one of one, two"),
        ({"choices": ["bad", "bad"]}, "choices names one text twice"),
        ({"choices": "bad"}, "expected choices to be a list of texts"),
        ({"choices": ["bad", 1]}, "expected choices to be a list of texts"),
        ({"input": " \t"}, "input is empty"),
        ({"target": ""}, "target is empty"),
        ({"input": 3}, "expected input to be a text, got 3"),
        ({"input": None}, "expected input to be a text, got None"),
        ({"split": "dev"}, "split is 'dev'; expected train, validation or test"),
        ({"task": "other"}, "task is 'other', but the file is that of 'mood'"),
        ({"group": 1}, "expected group to be a text, got 1"),
    ],
)
def test_a_row_that_is_wrong(tmp_path, change, fault):
    write(tmp_path, rows=[ROWS[0], ROWS[1] | change])
    assert said(tmp_path).startswith(f"DIR/mood.jsonl:2: {fault}")


def test_a_row_that_is_no_object(tmp_path):
    write(tmp_path, rows=[ROWS[0], ["a"]])
    assert "DIR/mood.jsonl:2: expected an object" in said(tmp_path)


def test_a_test_text_that_is_also_in_train(tmp_path):
    write(tmp_path, rows=[*ROWS, ROWS[2] | {"input": "lovely\n day "}])
    assert said(tmp_path) == "DIR/mood.jsonl:4: this test text is also in train (line 1); remove one of them"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            {"label_text": {"good": "fine", "bad": "fine"}},
            "labels 'good' and 'bad' have one label text, 'fine'",
        ),
        ({"label_text": {"good": "bad"}}, "labels 'good' and 'bad' have one label text, 'bad'"),
        ({"label_text": {"ugly": "x"}}, "label_text has 'ugly', which is not among its choices"),
        ({"label_text": {"good": ""}}, "expected label_text to give a text, not empty"),
        ({"label_text": ["a", "b"]}, "expected label_text to give a text"),
        ({"choices": ["good", "good"]}, "choices names one text twice"),
        ({"choices": {"good": 1}}, "expected choices to be a list of texts"),
        ({"kind": "regression"}, "kind is 'regression'; expected classification or generation"),
        ({"kind": None}, "kind is None"),
        ({"instruction": " "}, "the instruction not empty"),
        ({"instruction": 1}, "expected cluster and instruction to be texts"),
        ({"cluster": 1}, "expected cluster and instruction to be texts"),
        ({"skills": "animal"}, "expected skills to be a list of texts"),
    ],
)
def test_a_description_that_is_wrong(tmp_path, change, fault):
    write(tmp_path, described={"mood": MOOD | change})
    assert said(tmp_path).startswith(f"DIR/tasks.json: task mood: {fault}") or fault in said(tmp_path)


def test_classification_without_any_choices(tmp_path):
    write(tmp_path, described={"mood": {"kind": "classification", "instruction": "Good?"}})
    assert "DIR/mood.jsonl:1: neither the row nor tasks.json has choices" in said(tmp_path)


def test_choices_may_differ_from_row_to_row(tmp_path):
    described = {"mood": {"kind": "classification", "instruction": "Good?"}}
    write(tmp_path, rows=[ROWS[0] | {"choices": ["good", "so so"]}], described=described)
    (task,) = read_folder(tmp_path)
    assert task.rows["train"][0].choices == ("good", "so so") and task.choices == ()
