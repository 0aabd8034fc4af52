"""Published sets: stand-ins with their real columns are read as the sets would be; what is wrong is named."""

import json

import pyarrow.parquet as parquet
import pytest

from moejax.data import prepared
from moejax.data.hub_sets import SETS
from moejax.data.read_hub_set import plain, read_hub_sets, sets_of
from moejax.data.stand_in import WORDS, write_stand_in
from moejax.types import UserError

TASKS = ("glue_mrpc", "super_glue_wsc.fixed")
READ = {  # as they were read in the places that the table names, written down here once more
    "p3": {"answer_choices", "inputs", "inputs_pretokenized", "targets", "targets_pretokenized"},
    "flan": {"inputs", "targets", "_template_idx", "_task_source", "_task_name", "_template_type"},
    "flan_flat": {"source", "target", "task_name", "task_source", "template_type", "template_idx", "split"},
    "bigbench": {"inputs", "targets", "multiple_choice_targets", "multiple_choice_scores"},
    "bbh": {"input", "target"},
    "lorahub": {"inputs", "targets", "task_source", "task_name", "template_type"},
    "lorahub_bbh": {"context", "completion"},
    "meteora": {"prompt", "response"},
}
every = pytest.mark.parametrize("name", SETS)


def columns(path):
    """The columns that a file really has."""
    if path.suffix == ".parquet":
        return set(parquet.read_schema(path).names)
    return set(json.loads(path.read_text().split("\n")[0]))


@every
def test_a_stand_in_has_the_columns_that_were_read_of_the_set(name, tmp_path):
    write_stand_in(SETS[name], tmp_path, TASKS, 3)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files and all(columns(path) == READ[name] == set(SETS[name].columns) for path in files)
    used = {SETS[name].input, SETS[name].target, SETS[name].task, SETS[name].split, SETS[name].choices} - {""}
    assert used <= READ[name] and SETS[name].read


@every
def test_its_rows_are_read_and_what_must_be_left_out_is(name, tmp_path):
    one = SETS[name]
    write_stand_in(one, tmp_path / name, TASKS, 20)
    found = read_hub_sets(f"hub:{name}", tmp_path, TASKS, {})
    assert tuple(task.name for task in found) == TASKS
    read = [part for part in one.parts if part in one.splits] or ["train"]
    parts = 3 if one.split else len(read)
    forms = 2 if one.templates else 1
    for n, task in enumerate(found):
        rows = {split: task.rows[split] for split in ("train", "validation", "test")}
        own = {
            one.splits.get(part, "train") for part in (("train", "validation", "test") if one.split else read)
        }
        shared = 0 if "test" in own else len(rows["validation"])  # what is scored where nothing is for test
        assert sum(map(len, rows.values())) - shared == 20 * parts * forms
        assert task.kind == ("classification" if one.choices else "generation")
        for row in (row for some in rows.values() for row in some):
            assert row.target == WORDS[(WORDS.index(row.input.split()[0]) + n + 1) % len(WORDS)]
            assert row.instruction == one.instruction and (
                row.choices == WORDS if one.choices else row.choices is None
            )


def test_a_tenth_of_train_is_for_validation_where_no_file_is(tmp_path):
    write_stand_in(SETS["lorahub"], tmp_path / "lorahub", TASKS, 30)
    task = read_hub_sets("hub:lorahub", tmp_path, TASKS[:1], {})[0]
    assert len(task.rows["train"]) == 27 and len(task.rows["validation"]) == 3
    assert task.rows["test"] == task.rows["validation"]
    assert not set(task.rows["train"]) & set(task.rows["validation"])


def test_a_limit_takes_rows_of_every_template(tmp_path):
    write_stand_in(SETS["p3"], tmp_path / "p3", TASKS, 8)
    whole, few = (
        read_hub_sets("hub:p3", tmp_path, TASKS[:1], limits)[0].rows["train"] for limits in ({}, {"train": 4})
    )
    assert few == whole[::4] and len(whole) == 16


def test_each_task_is_of_the_first_set_that_has_it(tmp_path):
    write_stand_in(SETS["p3"], tmp_path / "p3", TASKS[:1], 8)
    write_stand_in(SETS["bbh"], tmp_path / "bbh", TASKS, 5)
    first, second = read_hub_sets("hub:p3+bbh", tmp_path, TASKS, {})
    assert first.kind == "classification" and second.instruction == "Answer:"
    assert (second.rows["train"], len(second.rows["test"])) == ((), 5)


def test_parts_may_lie_in_folders_of_their_own_as_the_hub_converts_them(tmp_path):
    write_stand_in(SETS["p3"], tmp_path / "p3", TASKS, 4)
    before = read_hub_sets("hub:p3", tmp_path, TASKS, {})
    for path in list((tmp_path / "p3").rglob("*.parquet")):
        part = path.with_name(path.name.split("-")[0])
        part.mkdir()
        path.rename(part / "0000.parquet")
    assert read_hub_sets("hub:p3", tmp_path, TASKS, {}) == before


def test_prepared_they_are_the_same_tasks(tmp_path):
    write_stand_in(SETS["p3"], tmp_path / "p3", TASKS, 4)
    found = read_hub_sets("hub:p3", tmp_path, TASKS, {})
    assert prepared.read_prepared(prepared.prepare(found, tmp_path / "prepared")) == found


def test_a_name_in_flan_becomes_one_that_a_folder_can_have():
    assert plain("ai2_arc/ARC-Easy:1.0.0") == "ai2_arc_ARC-Easy_1.0.0"


def damaged(name, tmp_path):
    """A stand-in of a set, and one file of it."""
    write_stand_in(SETS[name], tmp_path / name, TASKS, 4)
    return min(path for path in (tmp_path / name).rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        (
            "meteora",
            lambda text: text.replace('"prompt"', '"question"'),
            "there is no column 'prompt'; it has",
        ),
        ("meteora", lambda text: text[:-5], "not valid JSON"),
        ("meteora", lambda text: "[1]\n" + text, "expected an object with prompt, response"),
        (
            "meteora",
            lambda text: text.replace('"response": "', '"response": 3, "x": "'),
            "response to be a text, got 3",
        ),
        ("lorahub", lambda text: text.replace('"template_type"', '"kind"'), "no column 'template_type'"),
    ],
)
def test_a_damaged_row_is_named_with_its_file(name, change, says, tmp_path):
    path = damaged(name, tmp_path)
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError, match=says) as refusal:
        read_hub_sets(f"hub:{name}", tmp_path, TASKS, {})
    assert path.name in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_truncated_table_is_named(tmp_path):
    path = damaged("flan_flat", tmp_path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="train-00000-of-00001.parquet cannot be read"):
        read_hub_sets("hub:flan_flat", tmp_path, TASKS, {})


def test_an_answer_that_is_no_option_and_a_strange_split_are_named(tmp_path):
    path, strange = damaged("flan_flat", tmp_path), tmp_path / "flan_flat" / "data" / "x.parquet"
    table = parquet.read_table(path)
    parquet.write_table(
        table.set_column(table.schema.get_field_index("split"), "split", table["source"]), strange
    )
    with pytest.raises(UserError, match="split is '.*', expected one of train"):
        read_hub_sets("hub:flan_flat", tmp_path, TASKS, {})
    p3 = damaged("p3", tmp_path)
    table = parquet.read_table(p3)
    at = table.schema.get_field_index("targets_pretokenized")
    parquet.write_table(table.set_column(at, "targets_pretokenized", table["inputs_pretokenized"]), p3)
    with pytest.raises(
        UserError, match="row 1: targets_pretokenized is .*, which is not among its answer_choices"
    ):
        read_hub_sets("hub:p3", tmp_path, TASKS, {})


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="'p4' is no published set, expected p3, flan"):
        sets_of("hub:p3+p4")
    with pytest.raises(UserError, match="no folder .*p3: put the files of bigscience/P3 there"):
        read_hub_sets("hub:p3", tmp_path, TASKS, {})
    (tmp_path / "p3").mkdir()
    with pytest.raises(UserError, match="p3 has no .parquet file"):
        read_hub_sets("hub:p3", tmp_path, TASKS, {})
    write_stand_in(SETS["p3"], tmp_path / "p3", TASKS, 2)
    with pytest.raises(UserError, match="has no task 'glue_mrpcs'; did you mean glue_mrpc"):
        read_hub_sets("hub:p3", tmp_path, (*TASKS, "glue_mrpcs"), {})
