"""Configs: what is refused, what the fields are called, and configuration files."""

from dataclasses import replace

import pytest

from moejax.check_config import check
from moejax.config import (
    FREE,
    BaseConfig,
    CheckpointConfig,
    Config,
    DataConfig,
    EvaluationConfig,
    by_seed,
    plain,
    rows,
)
from moejax.load_config import load_config
from moejax.train.differences import differences
from moejax.train.experts import Recipe
from moejax.train.optimiser import Optimiser
from moejax.train.run_folder import as_json
from moejax.types import UserError

FOLDER = DataConfig(source="folder", folder="tasks", held_in=("sst2", "trec"), held_out=("mpqa",))
REFUSED = {
    "data.source is 'folders'": Config(data=DataConfig(source="folders")),
    "data.folder is given": Config(data=DataConfig(folder="tasks")),
    "--data-dir FOLDER": Config(data=replace(FOLDER, folder=None)),
    "data.held_in is empty": Config(data=replace(FOLDER, held_in=())),
    "data.held_in is empty: name": Config(pool="x", data=replace(FOLDER, source="tfds:mine", held_in=())),
    "task 'mpqa' is named twice in data.held_in, data.held_out and data.general": Config(
        data=replace(FOLDER, general=("mpqa",))
    ),
    "for the generated suite give data.suite.public": Config(data=DataConfig(general=("x",))),
    "task 'sst2' is named twice": Config(data=replace(FOLDER, held_out=("sst2",))),
    "seed 2 is in seeds twice": Config(seeds=(1, 2, 2)),
    "experts.layers is empty": Config(experts=Recipe(layers=())),
    "experts.rank is 0: expected 1": Config(experts=Recipe(rank=0)),
    "experts.alpha is -1.0: expected 0": Config(experts=Recipe(alpha=-1.0)),
    "experts.optimiser.rate is nan": Config(experts=Recipe(optimiser=Optimiser(float("nan"), 3))),
    "data.window is 0": Config(data=DataConfig(window=0)),
    "data.train_rows is 0": Config(data=DataConfig(train_rows=0)),
    "evaluation.shots is 0": Config(evaluation=EvaluationConfig(shots=0)),
    "checkpoint.every is -1": Config(checkpoint=CheckpointConfig(-1.0)),
    "seed is -1: expected 0": Config(seed=-1),
    "suite.kinds names 'topik'": Config(data=DataConfig(suite=replace(DataConfig().suite, kinds=("topik",)))),
    "methods is empty": Config(methods=()),
    "method 'base' is in methods twice": Config(methods=("base", "uniform", "base")),
    "did you mean 'arrow'": Config(methods=("arow",)),
    "pool_slots is given, but no pool that is on disk": Config(pool_slots=4, methods=("base",)),
    "pool_slots is 0: expected 1": Config(pool_slots=0, pool="experts", data=replace(FOLDER, held_in=())),
    "uniform weighs all experts of the pool, and pool_slots leaves them on disk": Config(
        pool_slots=4, pool="experts", data=replace(FOLDER, held_in=())
    ),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_cannot_run_is_refused_by_field(sentence):
    with pytest.raises(UserError) as refusal:
        check(REFUSED[sentence])
    assert sentence in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "config",
    [
        Config(),
        Config(data=FOLDER, seeds=(1, 2), seed=0),
        Config(data=replace(FOLDER, source="tfds:mine", folder=None)),
        Config(experts=Recipe(rank=1, layers=(0,)), checkpoint=CheckpointConfig(0.0)),
        Config(pool="experts", data=replace(FOLDER, held_in=(), held_out=())),
        Config(
            pool="experts", data=replace(FOLDER, held_in=()), pool_slots=2, methods=("base", "own_expert")
        ),
    ],
)
def test_what_can_run_is_given_back(config):
    assert check(config) is config


def test_rows_are_parsed_in_order():
    found = rows(Config(methods=("uniform", "arrow(factor)")))
    assert [(row.label, row.name, row.config.aggregation) for row in found] == [
        ("uniform", "uniform", "output"),
        ("arrow(factor)", "arrow", "factor"),
    ]


def test_each_seed_is_a_run_of_its_own():
    config = Config(run="runs/a", seed=7, seeds=(1, 2))
    first, second = by_seed(config)
    assert (first.run, first.seed, first.seeds) == ("runs/a/seed-1", 1, ())
    assert second == replace(config, run="runs/a/seed-2", seed=2, seeds=())
    assert by_seed(first) == (first,)


def test_free_fields_are_fields():
    names = as_json(plain(Config()))
    for field in FREE:
        record = names
        for part in field.split("."):
            assert part in record, field
            record = record[part]
    changed = Config(
        run="x", seeds=(1,), methods=("arrow",), accept_code=True, checkpoint=CheckpointConfig(1.0)
    )
    assert differences(names, as_json(plain(changed)), FREE) == []
    other = replace(changed, seed=3, base=BaseConfig("elsewhere"), experts=Recipe(rank=16))
    assert differences(names, as_json(plain(other)), FREE) == [
        "base.source: minilm there, elsewhere here",
        "experts.rank: 8 there, 16 here",
        "seed: 0 there, 3 here",
    ]


def test_a_pool_is_a_field_that_matters_and_is_not_written_where_there_is_none():
    assert "pool" not in plain(Config())
    with_pool = as_json(plain(Config(pool="experts")))
    assert differences(as_json(plain(Config())), with_pool, FREE) == ["pool: nothing there, experts here"]


def written(folder, text):
    path = folder / "mine.py"
    path.write_text("from moejax.config import Config\n" + text)
    return path


def test_a_file_names_its_run(tmp_path):
    path = written(
        tmp_path, "def config(): return Config(seed=3)\ndef fast(): return Config(seed=4, methods=('base',))"
    )
    assert load_config(path) == Config(run="runs/mine", seed=3)
    assert load_config(path, fast=True) == Config(run="runs/mine-fast", seed=4, methods=("base",))
    assert load_config(written(tmp_path, "def config(): return Config(run='there')")).run == "there"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "has no function config(): define one"),
        ("config = 3", "has no function config(): define one"),
        ("def config(): return 3", "returns int, expected moejax.config.Config"),
        ("def config(:", "does not run: SyntaxError"),
        ("import moejax.nothing", "does not run: ModuleNotFoundError"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path, text, sentence):
    with pytest.raises(UserError) as refusal:
        load_config(written(tmp_path, text))
    assert sentence in str(refusal.value)
    assert "mine.py" in str(refusal.value)


def test_an_error_inside_config_is_not_hidden(tmp_path):
    with pytest.raises(ZeroDivisionError):
        load_config(written(tmp_path, "def config(): return 1 / 0"))


def test_a_missing_file_gets_a_suggestion(tmp_path):
    written(tmp_path, "")
    with pytest.raises(UserError, match=r"no configuration .*mime.py, did you mean .*mine.py\?"):
        load_config(tmp_path / "mime.py")
    with pytest.raises(UserError, match=r"quickstart: there are .*mine.py"):
        load_config(tmp_path / "quickstart")
    with pytest.raises(UserError, match="name a file as in configs/quickstart.py"):
        load_config(tmp_path / "nowhere" / "mine.py")
    with pytest.raises(UserError, match="no smaller run"):
        load_config(written(tmp_path, "def config(): return Config()"), fast=True)
