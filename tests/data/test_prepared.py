"""Tasks as TFDS sets: written once, read back equal, faults said; and sets that others prepared."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from moejax.check_config import check
from moejax.commands.parse import parse
from moejax.config import Config
from moejax.data.generated import SuiteConfig, generate
from moejax.data.prepared import MARK, prepare, read_prepared, source
from moejax.data.tasks import data_hash
from moejax.data.tfds_sets import Fields, read_tfds
from moejax.stages.read_tasks import read_tasks
from moejax.types import UserError


@pytest.fixture(scope="module")
def suite():
    made = generate(SuiteConfig(train=8, pair_train=4, validation=2, test=2))
    return (*made.held_in[:2], made.held_out[0])


@pytest.fixture(scope="module")
def written(suite, tmp_path_factory):
    return prepare(suite, tmp_path_factory.mktemp("prepared"), "generated")


def test_what_is_prepared_is_read_back(written, suite):
    assert read_prepared(written) == suite


def test_own_tasks_with_choices_and_empty_splits(tmp_path, review, animals):
    folder = prepare((review, animals), tmp_path)
    assert folder.name.startswith("folder-") and read_prepared(folder) == (review, animals)
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_files_are_array_record_and_tensorflow_stays_away(written):
    import sys

    assert json.loads((written / "dataset_info.json").read_text())["fileFormat"] == "array_record"
    assert "tensorflow" not in sys.modules


def test_a_set_is_written_once_for_each_content(written, suite, monkeypatch):
    monkeypatch.setattr("moejax.data.prepared._written", lambda *args: pytest.fail("written again"))
    assert prepare(suite, written.parent, "generated") == written
    assert data_hash(suite)[:16] in written.name


def test_another_process_may_be_first(written, suite, tmp_path, monkeypatch):
    from moejax.data import prepared

    real = prepared._written

    def slow(tasks, folder, family):
        shutil.copytree(written, tmp_path / written.name)
        return real(tasks, folder, family)

    monkeypatch.setattr(prepared, "_written", slow)
    assert read_prepared(prepare(suite, tmp_path, "generated")) == suite
    assert [path.name for path in tmp_path.iterdir()] == [written.name]


def test_nothing_is_left_of_a_set_that_was_cut_short(suite, tmp_path, monkeypatch):
    def full(*args):
        raise OSError("no space left")

    monkeypatch.setattr("moejax.data.prepared._written", full)
    with pytest.raises(OSError, match="no space"):
        prepare(suite, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_way_is_said(suite, tmp_path, written):
    (tmp_path / written.name).mkdir()
    (tmp_path / written.name / "note").write_text("mine")
    with pytest.raises(UserError, match="exists but is no prepared set"):
        prepare(suite, tmp_path, "generated")
    assert (tmp_path / written.name / "note").read_text() == "mine"


def test_grain_reads_rows_by_number(written, suite):
    import grain

    rows = (
        grain.MapDataset.source(source(written, "train"))
        .shuffle(seed=0)
        .map(lambda raw: raw["input"].decode())
    )
    expected = sorted(row.input for task in suite for row in task.rows["train"])
    assert sorted(rows[i] for i in range(len(rows))) == expected


def damaged(written, tmp_path):
    return shutil.copytree(written, tmp_path / "copy")


def test_what_is_no_set_or_damaged_is_said(written, tmp_path):
    with pytest.raises(UserError, match="is no prepared set of tasks"):
        read_prepared(tmp_path)
    copy = damaged(written, tmp_path)
    said = json.loads((copy / MARK).read_text())
    said["tasks"]["topic"]["instruction"] = "other"
    (copy / MARK).write_text(json.dumps(said))
    with pytest.raises(UserError, match="the rows are not those that were written"):
        read_prepared(copy)
    del said["tasks"]["topic"]["kind"]
    (copy / MARK).write_text(json.dumps(said))
    with pytest.raises(UserError, match="is a damaged set of tasks"):
        read_prepared(copy)
    (copy / MARK).write_text("{")
    with pytest.raises(UserError, match="is a damaged set of tasks"):
        read_prepared(copy)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A set that some other builder wrote: a class label, a number of stars, free text."""
    import tensorflow_datasets as tfds

    from moejax.data import tfds_builders

    class Foreign(tfds_builders.FolderTasks, skip_registration=True):
        def _info(self):
            features = {
                "sentence": tfds.features.Text(), "title": tfds.features.Text(), "stars": np.int32,
                "label": tfds.features.ClassLabel(names=["bad", "good"]), "blank": tfds.features.Text(),
                "none": tfds.features.ClassLabel(names=["x"]),
            }  # fmt: skip
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(features), supervised_keys=("sentence", "label")
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples("a", 8), "dev": self._generate_examples("b", 2),
                    "test": self._generate_examples("c", 2)}  # fmt: skip

        def _generate_examples(self, word, count):
            for i in range(count):
                yield (
                    i,
                    {
                        "sentence": f"{word} {i}",
                        "title": "T",
                        "stars": i,
                        "label": i % 2,
                        "blank": "",
                        "none": -1,
                    },
                )

    folder = tmp_path_factory.mktemp("foreign")
    builder = Foreign(data_dir=folder)
    builder.download_and_prepare()
    return folder


ASK = Fields(instruction="Good or bad?")


def test_a_foreign_set_by_name_and_by_folder(foreign):
    (task,) = read_tfds("foreign", ASK, data_dir=foreign)
    assert read_tfds(str(next(foreign.glob("foreign/*"))), ASK) == (task,)
    assert task.name == "foreign" and task.kind == "classification" and task.choices == ("bad", "good")
    assert {(row.input, row.target) for row in task.rows["test"]} == {("c 0", "bad"), ("c 1", "good")}
    assert [len(task.rows[split]) for split in ("train", "validation", "test")] == [8, 2, 2]
    assert task.rows["train"][0].instruction == "Good or bad?"


def test_fields_choose_features_splits_and_phrases(foreign):
    fields = replace(
        ASK, input=("title", "sentence"), label_text={"bad": "awful"}, cluster="mood",
        splits={"train": "train[:50%]", "test": "train[50%:]"},
    )  # fmt: skip
    (task,) = read_tfds("foreign", fields, data_dir=foreign)
    assert task.label_text == ("awful", "good") and task.cluster == "mood"
    assert [len(task.rows[split]) for split in ("train", "validation", "test")] == [4, 0, 4]
    assert all(row.input.startswith("T a ") for row in task.rows["train"])
    (free,) = read_tfds("foreign", replace(ASK, target="stars"), data_dir=foreign)
    assert free.kind == "generation" and free.choices == ()
    assert {row.target for row in free.rows["test"]} == {"0", "1"}


def test_the_command_line_names_set_and_fields(foreign, tmp_path):
    """`--data tfds:NAME` with `--data.fields.…` gives a run its tasks."""
    line = ["--data", "tfds:foreign", "--data-dir", str(foreign), "--data.held-in", "foreign"]
    line += ["--data.fields.instruction", "Good or bad?", "--data.fields.label-text", "bad", "awful"]
    config = check(parse(Config, line, "train.py", ""))
    held_in, held_out, tasks = read_tasks(config, tmp_path)
    assert (held_in, held_out, list(tasks)) == (("foreign",), (), ["foreign"])
    assert tasks["foreign"].instruction == "Good or bad?"
    assert tasks["foreign"].label_text == ("awful", "good")
    with pytest.raises(UserError, match="'other'.*foreign"):
        read_tasks(replace(config, data=replace(config.data, held_in=("other",))), tmp_path)


def test_a_prepared_set_needs_no_fields(written, suite):
    assert read_tfds(str(written)) == suite


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        (Fields(), "fields.instruction is empty"),
        (
            replace(ASK, input=("text",)),
            "has no feature 'text': .* blank, label, none, sentence, stars, title",
        ),
        (replace(ASK, target="answer"), "has no feature 'answer'"),
        (replace(ASK, target="blank"), "row 0 of 'train' has an empty text"),
        (replace(ASK, target="none"), "row 0 of 'train' has no label"),
        (replace(ASK, splits={"test": "nowhere"}), "split 'nowhere' cannot be read"),
        (replace(ASK, splits={"train": "train", "test": "train"}), "test row 0 is also in train"),
        (replace(ASK, label_text={"bad": "good"}), "two labels have one label text"),
    ],
)
def test_fields_that_do_not_fit(foreign, fields, fault):
    with pytest.raises(UserError, match=fault):
        read_tfds("foreign", fields, data_dir=foreign)


def test_a_set_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="no prepared TFDS set 'nowhere'"):
        read_tfds("nowhere", ASK, data_dir=tmp_path)


def test_a_set_in_another_format(foreign, tmp_path):
    copy = shutil.copytree(next(foreign.glob("foreign/*")), tmp_path / "copy")
    said = json.loads((copy / "dataset_info.json").read_text())
    said["fileFormat"] = "tfrecord"
    (copy / "dataset_info.json").write_text(json.dumps(said))
    with pytest.raises(UserError, match="cannot be read .*it must be in array_record"):
        read_tfds(str(copy), ASK)
