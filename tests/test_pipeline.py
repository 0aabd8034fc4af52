"""train.py and eval.py end to end on a tiny base that is read from a folder: stages, resuming, refusals."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_folder
import world as worlds
from report_case import Page
from rich.console import Console

import eval as eval_script
import train as train_script
from moejax.cli import main
from moejax.commands import check_run
from moejax.config import FREE, Config, DataConfig, EvaluationConfig, plain, rows
from moejax.data.generated import SuiteConfig
from moejax.stages.scene import SPARE
from moejax.train.bottlenecks import BottleneckRecipe
from moejax.train.experts import Recipe
from moejax.train.fulls import FullRecipe
from moejax.train.optimiser import Optimiser
from moejax.types import UserError

METHODS = (
    "base", "uniform", "arrow(k=2)", "phatgoose(steps=2, batch=4)", "average_activation(rows=8, batch=4)",
    "task_arithmetic(grid=(0.3, 1.0), rows=4)", "token_gate(steps=2, batch=4)", "multitask(steps=2, batch=4, rank=2)",
    "best_single", "own_expert", "best_single(test)",
)  # fmt: skip


def config(base: Path, run: Path, **changes) -> Config:
    """A run that takes seconds: three skills, one pair, two steps."""
    suite = SuiteConfig(
        kinds=("animal", "place", "food"), pairs=(("animal", "place"),), train=12, pair_train=18, validation=4, test=6,
        clauses=(2, 3),
    )  # fmt: skip
    made = Config(
        run=str(run),
        data=DataConfig(window=64, suite=suite),
        experts=Recipe(rank=2, layers=(1,), batch=4, optimiser=Optimiser(1e-2, 3)),
        methods=METHODS,
        evaluation=EvaluationConfig(batch=8, samples=50),
    )
    return replace(made, base=replace(made.base, source=str(base)), **changes)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A tiny encoder with a tokenizer, as Hugging Face lays it out."""
    return tiny_folder.encoder(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def done(base, tmp_path_factory):
    """A run from nothing to the table."""
    settings = config(base, tmp_path_factory.mktemp("run") / "whole")
    train_script.train(settings)
    eval_script.evaluate(settings)
    return settings


def results(settings: Config) -> dict:
    """results.json of a run."""
    return json.loads((Path(settings.run) / "results.json").read_text())


def report(settings: Config) -> str:
    """report.html of a run."""
    return (Path(settings.run) / "report.html").read_text(encoding="utf-8")


def compiled(settings: Config) -> list[dict]:
    """What commands compiled, as metrics.jsonl says."""
    lines = (Path(settings.run) / "metrics.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["stage"] == "compiling"]


def test_the_table_has_every_method_in_its_group(done):
    found = {row["row"]: row for row in results(done)["rows"]}
    assert tuple(found) == METHODS
    assert [
        found[name]["sight"] for name in ("base", METHODS[3], METHODS[6], "best_single", "own_expert")
    ] == list(range(5))
    assert found["own_expert"]["held_out"] is None
    assert found["best_single"]["held_in"] is None
    for row in found.values():
        for split in ("held_in", "held_out"):
            for group, cell in (row[split] or {}).items():
                assert group in ("seen", "unseen")
                assert 0 <= cell["balanced_accuracy"] <= 1
                low, gap, high = (cell["against_uniform"][name] for name in ("low", "difference", "high"))
                assert low - 1e-9 <= gap <= high + 1e-9
        assert row["cost"]["time"] > 0
    uniform = found["uniform"]["held_in"]["seen"]["against_uniform"]
    assert uniform == {"difference": 0.0, "low": 0.0, "high": 0.0}
    assert found["arrow(k=2)"]["cost"]["trained"] == 0
    assert found[METHODS[3]]["cost"]["trained"] == found[METHODS[6]]["cost"]["trained"] > 0


def test_no_method_of_one_target_is_below_its_members_on_the_rows_it_saw(done):
    """The best single expert by test labels is at least as good on the target as the one chosen from a few."""
    found = {row["label"]: row["tasks"] for row in results(done)["rows"]}
    for task, groups in found["best_single(test)"].items():
        rows = sum(cell["rows"] for cell in groups.values())
        best = sum(cell["accuracy"] * cell["rows"] for cell in groups.values()) / rows
        few = sum(cell["accuracy"] * cell["rows"] for cell in found["best_single"][task].values()) / rows
        assert best >= few - 1e-9


def test_a_second_time_skips_what_is_done_and_gives_the_same(done, monkeypatch):
    before, page = results(done), re.sub("<time>.*?</time>", "", report(done))
    assert page != report(done)

    def never(*args, **kwargs):
        raise AssertionError("a stage ran again")

    monkeypatch.setattr("moejax.stages.make.train_together", never)
    monkeypatch.setattr("moejax.stages.compare.answers", never)
    monkeypatch.setattr("moejax.stages.report.routing.look", never)
    monkeypatch.setattr("moejax.stages.make.router_file.save", never)
    train_script.train(done)
    eval_script.evaluate(done)
    assert results(done) == before
    assert re.sub("<time>.*?</time>", "", report(done)) == page


def test_the_report_has_every_method_and_task_and_asks_for_nothing(done):
    page = Page(report(done))
    for row in results(done)["rows"]:
        assert row["label"] in page.text
    for name in ("animal", "place", "food", "animal_place"):
        assert page.text.count(name) > len(METHODS)
    assert not re.search(r"""(src|href)=["']?https?:|url\(|<script""", report(done))
    assert [value for value in page.values("href") if not value.startswith("#")] == []


def test_the_report_shows_what_each_router_did(done):
    found = {path.stem: json.loads(path.read_text()) for path in (Path(done.run) / "routing").iterdir()}
    assert set(found) == set(METHODS)
    units = {name: record.get("unit") for name, record in found.items()}
    assert units["base"] is None and units[METHODS[7]] is None  # nothing routed, one adapter
    assert units["arrow(k=2)"] == units[METHODS[3]] == "token"
    assert units["own_expert"] == "request" and units["uniform"] == units["best_single"] == "task"
    assert found["uniform"]["own"] == {name: name for name in ("animal", "place", "food")}
    for record in found.values():
        for site in record.get("sites", {}).values():
            assert site["layers"] == [1]  # the only one that is adapted
    own = found["own_expert"]["tasks"]
    assert {task: max(range(3), key=row.__getitem__) for task, row in own.items()} == {
        name: i for i, name in enumerate(found["own_expert"]["experts"])
    }
    texts = found["arrow(k=2)"]["texts"]
    assert [text["task"] for text in texts] == ["animal", "place", "food", "animal_place"]
    assert all(text["tokens"][0] == " [CLS]" and text["tokens"][-1] == " [SEP]" for text in texts)


def test_a_run_in_another_folder_gives_the_same_numbers(base, done, tmp_path):
    settings = config(base, tmp_path / "again", methods=METHODS[:4])
    train_script.train(settings)
    eval_script.evaluate(settings)
    for mine, theirs in zip(results(settings)["rows"], results(done)["rows"], strict=False):
        assert mine["label"] == theirs["label"]
        assert mine["tasks"] == theirs["tasks"]
    names = sorted(path.name for path in (Path(done.run) / "experts").iterdir())
    assert names == ["animal", "food", "place"]
    for name in names:
        one, two = (
            (Path(run) / "experts" / name / "adapter_model.safetensors").read_bytes()
            for run in (settings.run, done.run)
        )
        assert one == two


def test_each_seed_has_a_report_and_so_has_their_mean(base, tmp_path):
    settings = config(base, tmp_path / "seeds", methods=("uniform", "own_expert"), seeds=(0, 1))
    train_script.train(settings)
    eval_script.evaluate(settings, "python eval.py --seeds 0 1")
    ones = [(Path(settings.run) / f"seed-{seed}" / "report.html").read_text() for seed in settings.seeds]
    assert ["seed 0." in ones[0], "seed 1." in ones[1]] == [True, True]
    mean = Page(report(settings)).text
    assert "seeds 0, 1." in mean and "those of seed 0" in mean and "python eval.py --seeds 0 1" in mean
    assert "Report of seeds, seed 0" in ones[0]
    assert "Mean weight by task" in mean and "experts" in mean


def test_an_interrupted_run_ends_in_the_same_bits(base, done, tmp_path, monkeypatch):
    settings = config(base, tmp_path / "cut", methods=METHODS[:4])
    import moejax.train.work as work

    step, calls = work.train_step, []

    def failing(*args, **kwargs):
        calls.append(1)
        if len(calls) in (2, 5):
            raise KeyboardInterrupt
        return step(*args, **kwargs)

    monkeypatch.setattr(work, "train_step", failing)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train_script.train(settings)
    train_script.train(settings)
    eval_script.evaluate(settings)
    for mine, theirs in zip(results(settings)["rows"], results(done)["rows"], strict=False):
        assert mine["tasks"] == theirs["tasks"]
    gates = [
        Path(run) / "experts" / "animal" / "moejax_extras.safetensors" for run in (settings.run, done.run)
    ]
    from safetensors.numpy import load_file

    one, two = (load_file(path) for path in gates)
    shared = [name for name in one if name.startswith("gate")]
    assert shared and all(np.array_equal(one[name], two[name]) for name in shared)


PAIRS = (
    "routellm(batch=8, epochs=2, width=8)", 'routellm(sw, strong="uniform", weak="animal")',
    "routellm(sw, sample=target)",
)  # fmt: skip


def with_public(settings: Config) -> Config:
    """The same run with public texts."""
    data = replace(settings.data, suite=replace(settings.data.suite, public=8))
    return replace(settings, data=data)


@pytest.mark.slow
def test_a_choice_between_members_is_looked_up_and_has_a_curve(base, tmp_path, capsys, monkeypatch):
    from moejax.contract import Pair
    from moejax.evaluate.program import answers
    from moejax.stages import compare, make
    from moejax.stages.scene import make_scene
    from moejax.train.run_folder import open_run

    settings = with_public(config(base, tmp_path / "pairs", methods=("base", "uniform", *PAIRS)))
    train_script.train(settings)
    eval_script.evaluate(settings)
    shown = capsys.readouterr().out
    assert "strong or weak member" in shown and "weak animal at" in shown
    found = {row["row"]: row for row in results(settings)["rows"]}
    assert "Cost and quality" in report(settings)
    for name in PAIRS:
        pair = found[name]["curves"]
        assert pair["price"]["strong"] >= 1 and (pair["held_in"] is None) == ("target" in name)
        for split in ("held_in", "held_out"):
            for cell in (pair[split] or {}).values():
                assert cell["share"][0] == 0 and cell["share"][-1] == 1 and 0 <= cell["called"] <= 1
                assert (cell["apgr"] is None) == (cell["accuracy"][-1] <= cell["accuracy"][0])
    assert found[PAIRS[1]]["curves"]["weak"] == "animal" and found[PAIRS[1]]["curves"]["strong"] == "uniform"
    assert "curves" not in found["uniform"]
    for split in ("held_in", "held_out"):  # the ends of a curve are its members, which the table has too
        for group, cell in found[PAIRS[1]]["curves"][split].items():
            assert cell["accuracy"][-1] == pytest.approx(found["uniform"][split][group]["accuracy"])
    with open_run(settings.run, plain(settings), FREE) as run:
        scene = make_scene(settings, run, Console(quiet=True))
        pool = make.experts(settings, scene, run, Console(quiet=True))
        for row in rows(settings)[2:]:
            said = compare.answer(settings, scene, pool, run, row).found
            for task, adapted, arrays, _, test, _ in compare.applied(settings, scene, pool, run, row):
                assert isinstance(adapted.route, Pair)
                assert np.array_equal(said[task]["choice"], answers(adapted, arrays, test, 8))
    memo = sorted((Path(settings.run) / "memo").iterdir())
    assert (
        len(memo) == 3
    )  # public rows to train and to validate on, and the test rows, once for all three routers
    before = results(settings)
    monkeypatch.setattr("moejax.train.outcomes._alone", None)  # nothing runs again
    train_script.train(settings)
    eval_script.evaluate(settings)
    assert results(settings) == before


def test_without_public_rows_the_row_says_what_to_do(base, tmp_path):
    settings = config(base, tmp_path / "private", methods=("uniform", "routellm"))
    train_script.train(settings)
    eval_script.evaluate(settings)
    (row,) = (row for row in results(settings)["rows"] if row["label"] == "routellm")
    assert "no public rows" in row["not_applicable"] and "data.suite.public" in row["not_applicable"]


@pytest.mark.slow
def test_public_texts_change_no_other_number(base, done, tmp_path):
    settings = with_public(config(base, tmp_path / "public", methods=METHODS[:7]))
    train_script.train(settings)
    eval_script.evaluate(settings)
    for mine, theirs in zip(results(settings)["rows"], results(done)["rows"], strict=False):
        assert mine["label"] == theirs["label"] and mine["tasks"] == theirs["tasks"]


@pytest.mark.slow
def test_all_targets_go_through_one_compiled_step(base, tmp_path, capsys):
    settings = config(base, tmp_path / "targets", methods=("uniform", "mole(steps=2, batch=4)"))
    suite = replace(settings.data.suite, pairs=(("animal", "place"), ("place", "food"), ("food", "animal")))
    settings = replace(settings, data=replace(settings.data, suite=suite))
    jax.clear_caches()  # whatever other tests of this process compiled
    with worlds.compiles() as programs:
        train_script.train(settings)
    assert programs.count("jit(train_step)") == 2  # the experts', and MoLE's for all three targets
    (line,) = compiled(settings)
    assert line["command"] == "train.py" and line["compiled"] + line["read"] == len(programs)
    assert line["seconds"] + line["read_seconds"] > 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"programs: {line['compiled']} compiled in ")
    folders = {path.name for path in (Path(settings.run) / "routers").iterdir()}
    assert len([name for name in folders if name.startswith("mole")]) == 3
    eval_script.evaluate(settings)
    assert [line["command"] for line in compiled(settings)] == ["train.py", "eval.py"]
    assert capsys.readouterr().out.splitlines()[-1].startswith("programs: ")
    (row,) = (row for row in results(settings)["rows"] if row["label"] == "mole")
    assert row["held_in"] is None and len(row["tasks"]) == 3
    assert row["sight"] == 3


@pytest.mark.slow
def test_a_row_of_bottleneck_adapters_gets_a_pool_of_its_own(base, tmp_path, capsys):
    rows = ("base", "uniform", "own_expert", "own_expert(bottleneck)", "adapterfusion(steps=2, batch=4)",
            "adapterfusion(lora, all, static, steps=2, batch=4)")  # fmt: skip
    settings = config(
        base, tmp_path / "own", methods=rows, bottlenecks=BottleneckRecipe(batch=4, reduction=4)
    )
    train_script.train(settings)
    assert "3 experts, and beside them 3 of kind bottleneck" in capsys.readouterr().out
    eval_script.evaluate(settings)
    found = {row["row"]: row for row in results(settings)["rows"]}
    assert not any("not_applicable" in row for row in found.values())
    assert found["own_expert"]["tasks"] != found["own_expert(bottleneck)"]["tasks"]
    width = 3 * 16 * 16 + 2 * 16
    assert found[rows[4]]["cost"]["trained"] == width
    folders = {path.parent.name for path in Path(settings.run).glob("experts*/*/adapter_config.json")}
    assert folders == {"animal", "place", "food"}
    info = json.loads((Path(settings.run) / "experts@bottleneck" / "food" / "moejax.json").read_text())
    assert info["kind"] == "bottleneck"
    looked = check_run.run(Path(settings.run), None)  # each router against the experts that it is of
    assert looked.count() == 0 and len(looked.parts) == 2 + 6


@pytest.mark.slow
def test_a_row_of_full_fine_tunes_gets_a_pool_of_its_own(base, tmp_path, capsys):
    rows = ("base", "uniform", "own_expert", "own_expert(delta)", "task_arithmetic(delta, batch=4, rows=4)",
            "we_moe(delta, steps=2, batch=4)")  # fmt: skip
    settings = config(
        base, tmp_path / "own", methods=rows, fulls=FullRecipe(batch=4, optimiser=Optimiser(1e-3, 3))
    )
    train_script.train(settings)
    assert "3 experts, and beside them 3 of kind delta" in capsys.readouterr().out
    eval_script.evaluate(settings)
    found = {row["row"]: row for row in results(settings)["rows"]}
    assert not any("not_applicable" in row for row in found.values())
    assert found["own_expert"]["tasks"] != found["own_expert(delta)"]["tasks"]
    folder = Path(settings.run) / "experts@delta"
    assert {path.parent.name for path in folder.glob("*/model.safetensors")} == {"animal", "place", "food"}
    looked = check_run.run(Path(settings.run), None)  # each router against the experts that it is of
    assert looked.count() == 0
    given = replace(config(base, tmp_path / "given", methods=("base", "uniform", "we_moe(steps=2, batch=4)")),
                    pool=str(folder))  # fmt: skip
    train_script.train(given)
    eval_script.evaluate(given)
    found = {row["row"]: row for row in results(given)["rows"]}
    assert found["uniform"]["not_applicable"] == "it routes experts of kind lora, the pool's are delta"
    assert "not_applicable" not in found["we_moe(steps=2, batch=4)"]


def test_a_full_disk_is_met_before_whole_models_are_trained(base, tmp_path, monkeypatch):
    settings = config(
        base, tmp_path / "own", methods=("base", "own_expert(delta)"), experts=Recipe(rank=2, batch=4)
    )
    free = shutil.disk_usage(tmp_path)._replace(free=SPARE + 10_000)
    monkeypatch.setattr("moejax.stages.make.shutil.disk_usage", lambda path: free)
    with pytest.raises(UserError, match="3 experts fine-tuned in full take .* MB, but 200 MB are free"):
        train_script.train(settings)
    assert not (Path(settings.run) / "experts@delta").exists()


@pytest.mark.slow
def test_a_pool_of_another_kind_is_not_applicable(base, tmp_path):
    settings = config(base, tmp_path / "own", methods=("base", "adapterfusion(steps=1, batch=4)"))
    train_script.train(settings)
    given = replace(
        config(
            base, tmp_path / "given", methods=("base", "own_expert", "uniform", "phatgoose(steps=1, batch=2)")
        ),
        pool=str(Path(settings.run) / "experts@bottleneck"),
    )
    train_script.train(given)
    eval_script.evaluate(given)
    found = {row["row"]: row for row in results(given)["rows"]}
    assert "not_applicable" not in found["base"] and "not_applicable" not in found["own_expert"]
    for name in ("uniform", "phatgoose(steps=1, batch=2)"):
        assert found[name]["not_applicable"] == "it routes experts of kind lora, the pool's are bottleneck"


@pytest.mark.slow
def test_a_second_model_stands_beside_the_base(base, tmp_path, capsys):
    other = tiny_folder.encoder(tmp_path / "other", layers=3, width=24, seed=1)
    rows = ("base", "calm(connections=1, steps=2, batch=4)", 'routellm(strong="beside", width=8, epochs=1)')
    settings = config(base, tmp_path / "run", methods=rows)
    suite = replace(settings.data.suite, public=4)
    settings = replace(
        settings,
        base=replace(settings.base, beside=str(other)),
        data=replace(settings.data, suite=suite),
    )
    train_script.train(settings)
    eval_script.evaluate(settings)
    (row,) = (row for row in results(settings)["rows"] if row["label"] == "calm")
    assert row["cost"]["trained"] == 24 * 16 + 4 * 16 * 16 and row["tasks"]  # D_A D_B + 4 D_B^2
    (row,) = (row for row in results(settings)["rows"] if row["label"] == "routellm")
    assert row["curves"]["strong"] == "beside" and row["curves"]["price"]["strong"] > 1
    looked = check_run.run(Path(settings.run), None)
    assert looked.count() == 0
    third = tiny_folder.encoder(tmp_path / "third", layers=3, width=24, seed=2)
    changed = replace(settings, base=replace(settings.base, beside=str(third)))
    assert main(lambda _: train_script.train(changed), ["--config", "configs/quickstart.py"], "train.py") == 2
    assert "base.beside" in capsys.readouterr().err


def test_a_second_model_with_other_words_is_refused_in_a_sentence(base, tmp_path, capsys):
    other = tiny_folder.encoder(tmp_path / "other")
    words = json.loads((other / "tokenizer.json").read_text())
    taken = words["model"]["vocab"]
    first, second = sorted(word for word in taken if word.isalpha())[:2]
    taken[first], taken[second] = taken[second], taken[first]
    (other / "tokenizer.json").write_text(json.dumps(words))
    settings = config(base, tmp_path / "run", methods=("base",))
    settings = replace(settings, base=replace(settings.base, beside=str(other)))
    assert (
        main(lambda _: train_script.train(settings), ["--config", "configs/quickstart.py"], "train.py") == 2
    )
    assert "(base.beside) has another tokenizer than the base" in capsys.readouterr().err


def test_another_configuration_is_refused_with_what_differs(base, done, capsys):
    other = replace(done, experts=replace(done.experts, rank=4))
    assert main(lambda _: train_script.train(other), ["--config", "configs/quickstart.py"], "train.py") == 2
    assert "experts.rank: 2 there, 4 here" in capsys.readouterr().err


def test_eval_without_train_says_so(base, tmp_path, done, capsys):
    settings = config(base, tmp_path / "empty", methods=("base",))
    shutil.copytree(Path(done.run) / "experts", tmp_path / "kept")
    assert (
        main(lambda _: eval_script.evaluate(settings), ["--config", "configs/quickstart.py"], "eval.py") == 2
    )
    assert "run train.py first" in capsys.readouterr().err
