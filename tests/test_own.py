"""Anybody's own files: ten lines of Python, and one command, on a base, experts and tasks that stand in folders."""

import contextlib
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import own
import pytest
from rich.console import Console

import eval as eval_script
from moejax import methods
from moejax.adapted import Adapted, score
from moejax.cli import configure, main
from moejax.config import FREE, by_seed, plain
from moejax.data.folder import read_folder, write_folder
from moejax.evaluate.grants import Grants
from moejax.evaluate.labels import label_vectors
from moejax.experts.pool import read_pool
from moejax.models.weights import load
from moejax.stages.scene import make_scene
from moejax.train.run_folder import open_run
from moejax.types import Batch

README = (Path(__file__).parents[1] / "README.md").read_text()
TEN_LINES = README.split("```python\n")[1].split("```")[0]
QUICK = "uniform,arrow(k=2),phatgoose(steps=2, batch=4),token_gate(steps=2, batch=4),best_single,own_expert"


@pytest.fixture(scope="module")
def my(tmp_path_factory) -> Path:
    """A folder with `my/base`, `my/experts` and `my/data`."""
    return own.everything(tmp_path_factory.mktemp("own") / "my")


def command(my: Path, *words: str, experts: str = "experts") -> tuple[str, ...]:
    """The words of the command on these folders."""
    given = {"--base": "base", "--experts": experts, "--data-dir": "data"}
    return (*(word for flag, name in given.items() for word in (flag, str(my / name))), *words)


def evaluate(*words: str) -> dict:
    """Run the command, and read its results."""
    quick = ("--evaluation.batch", "8", "--evaluation.samples", "20")
    assert main(eval_script.evaluate, [*words, *quick], "eval.py") == 0
    return json.loads((Path(words[words.index("--run") + 1]) / "results.json").read_text())


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file of a folder: bytes, and when it was last written."""
    return {
        str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns)
        for p in folder.rglob("*")
        if p.is_file()
    }


def test_ten_lines_say_what_score_says(my, monkeypatch):
    monkeypatch.chdir(my.parent)
    said = io.StringIO()
    assert len([line for line in TEN_LINES.splitlines() if line]) == 10
    space: dict = {}
    with contextlib.redirect_stdout(said):
        exec(TEN_LINES, space)
    printed = [float(number) for number in re.findall(r"-?[\d.]+(?:e-?\d+)?", said.getvalue())]
    base, (adapted, arrays) = space["base"], (space["adapted"], space["arrays"])
    asked = base.tokenizer(["the eagle sleeps", "What animal?"], add_special_tokens=False)
    ids = asked["input_ids"]
    row = [base.tokenizer.cls_token_id, *ids[0], *ids[1], base.tokenizer.sep_token_id]
    mask, pool = np.ones((1, len(row)), bool), np.zeros((1, len(row)), bool)
    pool[:, 1 : 1 + len(ids[0])] = True
    batch = Batch(np.array([row], np.int32), mask, mask, pool, choices=np.array([[0, 1]], np.int32))
    batch = jax.tree.map(jnp.asarray, batch)
    arrays = {**arrays, "labels": label_vectors(base, ["bird", "sea"])}
    wanted = np.asarray(score(adapted, arrays, batch)[0])
    bare = np.asarray(score(Adapted(base.model), arrays, batch)[0])
    assert np.allclose(printed, wanted[0], atol=1e-3)
    assert np.abs(bare - wanted).max() > 1e-2


@pytest.fixture(scope="module")
def done(my):
    """The command's results, what it printed, and the user's folders before and after."""
    before, said = content(my), io.StringIO()
    with contextlib.redirect_stdout(said):
        results = evaluate(*command(my, "--methods", QUICK, "--run", str(my.parent / "run")))
    return results, said.getvalue(), before, content(my)


def test_one_command_compares_methods_on_my_own_files(done):
    results, said, _, _ = done
    assert results["tasks"] == {"held_in": ["animal", "place"], "held_out": ["food", "animal_place"]}
    assert "held in: animal (expert animal), place (expert ann)" in said
    rows = {row["row"].partition("(")[0]: row for row in results["rows"]}
    assert list(rows) == ["uniform", "arrow", "phatgoose", "token_gate", "best_single", "own_expert"]
    assert not [row for row in rows.values() if "not_applicable" in row]
    assert set(rows["own_expert"]["tasks"]) == {"animal", "place"}
    assert set(rows["best_single"]["tasks"]) == {"food", "animal_place"}
    assert set(rows["token_gate"]["tasks"]) == {"animal", "place", "food", "animal_place"}
    assert rows["phatgoose"]["cost"]["trained"] == rows["token_gate"]["cost"]["trained"] > 0


def test_my_own_files_stay_as_they_were(done, my):
    _, _, before, after = done
    assert before == after
    extras = sorted(
        path.relative_to(my.parent / "run") for path in (my.parent / "run").rglob("moejax_extras*")
    )
    assert [str(path.parent) for path in extras] == ["extras/animal", "extras/ann"]


def test_the_oracle_answers_a_task_by_the_expert_that_names_it(done, my):
    """`ann` says that it is for `place`: the row of the oracle is what `ann` alone would answer."""
    base = load(my / "base")
    results = {row["row"]: row for row in done[0]["rows"]}
    config = configure(command(my, "--methods", "uniform", "--run", str(my.parent / "alone")), "eval.py", "")
    with open_run(config.run, plain(config), FREE) as run:
        scene = make_scene(config, run, Console(quiet=True))
    pool, _ = read_pool(my / "experts", base.sites, base.shapes, base.layers, base.fingerprint)
    method, test = methods.load("uniform"), scene.rows["place"]["test"]
    settings, alone = method.Config(), pool.take(["ann"])
    router = method.fit(settings, scene.top, alone, Grants(frozenset(), {}), None)
    arrays = method.arrays(settings, scene.top, alone, router)
    batch = jax.tree.map(jnp.asarray, test.take(np.arange(len(test))))
    found = np.asarray(score(method.adapt(settings, scene.top), arrays, batch)[0]).argmax(axis=1)
    right = found == np.asarray(test.whole.targets)[test.index]
    for group, cell in results["own_expert"]["tasks"]["place"].items():
        assert cell["accuracy"] == right[scene.groups("place") == group].mean()


def test_a_second_time_computes_nothing(done, my, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("a stage ran again")

    for name in ("stages.make.router_file.save", "stages.compare.answers", "train.features._below"):
        monkeypatch.setattr(f"moejax.{name}", never)
    monkeypatch.setattr("moejax.train.work.Work.train", never)
    again = evaluate(*command(my, "--methods", QUICK, "--run", str(my.parent / "run")))
    assert again["rows"] == done[0]["rows"]


def test_what_an_expert_lacks_is_said_in_its_row(my, done, tmp_path):
    """A third expert, of no task here and without a gate: rows that need more of it say so, the others go on."""
    for name in ("base", "data"):
        (tmp_path / name).symlink_to(my / name)
    for name in ("animal", "ann"):
        own.expert(
            load(my / "base"), tmp_path / "experts" / name, **({"task": "place"} if name == "ann" else {})
        )
    own.expert(load(my / "base"), tmp_path / "experts" / "cy", layer=0, task="elsewhere")
    rows = ("uniform", "phatgoose(steps=2, batch=4)", "token_gate(steps=2, batch=4)")
    found = evaluate(*command(tmp_path, "--run", str(tmp_path / "run"), "--methods", *rows))["rows"]
    uniform, phatgoose, gate = found
    assert "tasks" in uniform
    assert phatgoose["not_applicable"].startswith("cy has no gate")
    assert gate["not_applicable"].startswith("expert cy has no task in the data")
    assert not list((tmp_path / "run").glob("features*")), "cy adapts the lowest layer: nothing lies below it"


def test_modes_that_need_other_extras_stand_in_one_table(my, tmp_path):
    rows = ("loraretriever(shelf)", "loraretriever(centroids)")
    shelf, centroids = evaluate(*command(my, "--run", str(tmp_path / "run"), "--methods", *rows))["rows"]
    assert shelf["extras"] == ["samples"] and centroids["extras"] == ["mean"]
    assert shelf["tasks"] == centroids["tasks"]  # the mean of the same samples
    kept = tmp_path / "run" / "extras" / "animal"
    assert (kept / "moejax_samples.jsonl").is_file() and (kept / "moejax_extras.safetensors").is_file()
    assert not list((my / "experts").rglob("moejax_samples.jsonl"))


def test_without_a_task_of_their_own_the_oracle_says_so(my, tmp_path, capsys):
    (tmp_path / "data").symlink_to(my / "data")
    (tmp_path / "base").symlink_to(my / "base")
    own.expert(load(my / "base"), tmp_path / "experts" / "cy")
    words = command(tmp_path, "--run", str(tmp_path / "run"), "--methods", "own_expert", "best_single")
    rows = evaluate(*words, "--data.held-in", "food", "--data.held-out", "place")["rows"]
    assert rows[0]["not_applicable"] == "no task is an expert's own"
    assert set(rows[1]["tasks"]) == {"place"}
    said = capsys.readouterr().out
    assert "expert cy has no task in the data" in said
    assert "own_expert: no task is an expert's own" in said


def test_rows_that_a_task_lacks_are_said_in_the_rows_that_need_them(my, tmp_path, capsys):
    """`animal` has no validation rows and `food`, which is held out, none to train on."""
    cut = [("animal", "validation"), ("food", "train")]
    tasks = {task.name: task for task in read_folder(my / "data")}
    for name, split in cut:
        tasks[name] = replace(tasks[name], rows={**tasks[name].rows, split: ()})
    write_folder(tasks.values(), tmp_path / "data")
    for name in ("base", "experts"):
        (tmp_path / name).symlink_to(my / name)
    rows = ("token_gate(steps=2, batch=4)", "task_arithmetic(rows=4)", "best_single", "best_single(test)")
    words = command(tmp_path, "--run", str(tmp_path / "run"), "--methods", *rows)
    found = {row["row"]: row for row in evaluate(*words)["rows"]}
    assert set(found[rows[0]]["tasks"]) == set(tasks), "training rows are enough for it"
    assert found[rows[1]]["not_applicable"] == "task animal has no validation rows"
    assert found[rows[2]]["not_applicable"] == "task food has no train rows"
    assert set(found[rows[3]]["tasks"]) == {"food", "animal_place"}
    assert main(eval_script.evaluate, [*words, "--evaluation.split", "validation"], "eval.py") == 2
    capsys.readouterr()
    words = [
        *words[: words.index("--run")],
        "--run",
        str(tmp_path / "other"),
        "--evaluation.split",
        "validation",
    ]
    assert main(eval_script.evaluate, words, "eval.py") == 2
    assert (
        "task 'animal' has no validation rows to answer: add some, or name the tasks"
        in capsys.readouterr().err
    )


def test_a_pool_that_grew_is_read_anew_in_the_same_run(my, done):
    """Only what depends on the pool is made again: no refusal, and no answer of the smaller pool."""
    base, extra = load(my / "base"), my / "experts" / "bob"
    own.expert(base, extra, task="food")
    try:
        words = command(my, "--run", str(my.parent / "run"), "--methods", "uniform", "own_expert")
        results = evaluate(*words)
    finally:
        for path in sorted(extra.iterdir()):
            path.unlink()
        extra.rmdir()
    assert results["tasks"] == {"held_in": ["animal", "place", "food"], "held_out": ["animal_place"]}
    rows = {row["row"]: row for row in results["rows"]}
    assert set(rows["own_expert"]["tasks"]) == {"animal", "food", "place"}


def test_another_base_in_the_same_run_is_refused(my, done, capsys):
    words = [*command(my, "--run", str(my.parent / "run")), "--base", "elsewhere"]
    assert main(eval_script.evaluate, words, "eval.py") == 2
    assert "elsewhere here): undo that" in capsys.readouterr().err


def test_each_seed_is_a_run_of_its_own_on_the_same_experts(my, tmp_path):
    config = configure(command(my, "--seeds", "1", "2", "--run", str(tmp_path / "run")), "eval.py", "")
    assert [one.pool for one in by_seed(config)] == [str(my / "experts")] * 2


def test_rows_of_named_tasks_are_public(my, tmp_path):
    words = command(
        my, "--run", str(tmp_path / "run"), "--data.general", "food", "--methods", "uniform,routellm(sw)"
    )
    found = evaluate(*words)
    assert found["tasks"] == {"held_in": ["animal", "place"], "held_out": ["animal_place"]}
    row = next(row for row in found["rows"] if row["label"] == "routellm(sw)")
    assert row["chosen"]["threshold"] == "8 public rows" and "food" not in row["tasks"]


def test_a_public_task_that_an_expert_is_for_is_refused(my, tmp_path, capsys):
    words = command(my, "--run", str(tmp_path / "run"), "--data.general", "place", "--methods", "uniform")
    assert main(eval_script.evaluate, [*words], "eval.py") == 2
    assert "task place is in data.general, but expert ann is for it" in capsys.readouterr().err
    wrong = command(my, "--run", str(tmp_path / "other"), "--data.general", "foot", "--methods", "uniform")
    assert main(eval_script.evaluate, [*wrong], "eval.py") == 2
    assert "no task 'foot'; did you mean food?" in capsys.readouterr().err


def test_a_pool_that_stays_on_disk_gives_the_same_table(my, tmp_path):
    words, found = ("--methods", "base", "best_single", "best_single(test)", "own_expert"), []
    for number, more in enumerate(((), ("--pool-slots", "1"))):
        results = evaluate(*command(my, *words, *more, "--run", str(tmp_path / str(number))))
        assert not [row for row in results["rows"] if "not_applicable" in row]
        found.append([{name: row[name] for name in ("row", "tasks", "chosen")} for row in results["rows"]])
        routing = json.loads((tmp_path / str(number) / "routing" / "own_expert.json").read_text())
        found[-1].append(
            {name: routing[name] for name in ("experts", "tasks", "unit")}
        )  # of fewer rows by slots
    for mine, theirs in zip(*found, strict=True):
        assert mine == theirs


def test_experts_are_retrieved_and_merged_from_disk(my, tmp_path):
    words = ("--methods", "loraretriever(centroids, selection)", "lorahub(budget=3, search=random)")
    found = []
    for number, more in enumerate(((), ("--pool-slots", "2"))):
        results = evaluate(*command(my, *words, *more, "--run", str(tmp_path / str(number))))
        found.append([row["tasks"] for row in results["rows"]])
    assert found[0] == found[1]


def test_a_method_that_weighs_all_experts_needs_them_in_memory(my, tmp_path, capsys):
    words = command(my, "--methods", "base", "arrow", "--pool-slots", "2", "--run", str(tmp_path / "run"))
    assert main(eval_script.evaluate, list(words), "eval.py") == 2
    assert (
        "arrow weighs all experts of the pool, and pool_slots leaves them on disk" in capsys.readouterr().err
    )
