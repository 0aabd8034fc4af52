"""train.py and eval.py on decoders: choices ranked and texts written, against loops by hand; bases that runs train."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import own
import pytest
import tiny_folder
from report_case import Page
from rich.console import Console

import eval as eval_script
import train as train_script
from moejax.adapted import Adapted, head, run
from moejax.cli import main
from moejax.commands import check_run
from moejax.config import FREE, TRAINED, BaseConfig, Config, DataConfig, EvaluationConfig, plain
from moejax.data.folder import write_folder
from moejax.data.rules import RulesConfig
from moejax.data.tasks import Row, Task
from moejax.evaluate.told import likelihoods, told
from moejax.experts.bank import stack
from moejax.methods import load as method_of
from moejax.models.weights import load
from moejax.stages import compare, make
from moejax.stages.scene import make_scene
from moejax.train.experts import Recipe
from moejax.train.optimiser import Optimiser
from moejax.train.run_folder import open_run
from moejax.train.scratch import ScratchRecipe
from moejax.types import Batch

pytestmark = pytest.mark.slow  # whole runs, all of them
METHODS = (
    "base", "uniform", "arrow(k=2)", "phatgoose(steps=2, batch=4)", "task_arithmetic(grid=(0.3, 1.0), rows=4)",
    "token_gate(steps=2, batch=4)", "best_single", "own_expert",
)  # fmt: skip
CHOICES, WRITTEN = ("animal", "place"), ("first_word", "last_words")
QUICK = EvaluationConfig(batch=8, samples=20, max_new=5)
MORE = (
    "meteora(steps=2, batch=4)", "lorahub(budget=4, k=2)", "mole(steps=2, batch=4)", "best_single(test)",
    "uniform(factor)", "arrow(factor)", "average_activation(rows=4, batch=4)", "multitask(steps=2, batch=4, rank=2)",
    "we_moe(steps=2, batch=4)", "adapterfusion(steps=2, batch=4)",
    "granularity(example, topk, output, rows=4, batch=4)",
)  # fmt: skip


def free_text(name: str, target, rows: int = 8) -> Task:
    """A task whose answer is made of the text's words."""
    words = "the crow sleeps in the forest while my brother eats bread and the train is late".split()
    made = {}
    for seed, split in enumerate(("train", "validation", "test")):
        rng = np.random.default_rng([seed, len(name)])
        texts = [" ".join(rng.choice(words, int(n))) for n in rng.integers(3, 7, rows)]
        made[split] = tuple(
            Row(f"{split} {text}", "which word is it?", target(text.split())) for text in texts
        )
    return Task(name, "generation", "words", "which word is it?", made)


def data(folder: Path) -> Path:
    """Two tasks of choices and one of free text that experts know, one of each that none does."""
    own.tasks(folder)
    write_folder(
        [free_text("first_word", lambda w: w[0]), free_text("last_words", lambda w: " ".join(w[-2:]))], folder
    )
    return folder


def config(base: Path, tasks: Path, run: Path, **changes) -> Config:
    """A run of seconds."""
    made = Config(
        run=str(run), base=BaseConfig(source=str(base)),
        data=DataConfig(
            source="folder", folder=str(tasks), window=64,
            held_in=(*CHOICES, "first_word"), held_out=("animal_place", "last_words"),
        ),
        experts=Recipe(rank=2, batch=4, optimiser=Optimiser(1e-2, 3)),
        methods=METHODS, evaluation=QUICK,
    )  # fmt: skip
    return replace(made, **changes)


def both(settings: Config) -> dict:
    """train.py, eval.py, and what they found."""
    train_script.train(settings)
    eval_script.evaluate(settings)
    return json.loads((Path(settings.run) / "results.json").read_text())


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tiny_folder.decoder(tmp_path_factory.mktemp("decoder"))


@pytest.fixture(scope="module")
def tasks(tmp_path_factory) -> Path:
    return data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def done(base, tasks, tmp_path_factory):
    settings = config(base, tasks, tmp_path_factory.mktemp("run") / "whole")
    return settings, both(settings)


def test_both_kinds_of_task_stand_in_one_table(done):
    settings, found = done
    assert found["measure"] == "balanced accuracy or exact match"
    rows = {row["row"]: row for row in found["rows"]}
    assert tuple(rows) == METHODS and not any("not_applicable" in row for row in rows.values())
    for row in rows.values():
        for task, groups in row["tasks"].items():
            for cell in groups.values():
                own = {"exact_match", "rouge_l"} if task in WRITTEN else {"accuracy", "accuracy_norm"}
                assert own | {"perplexity", "byte_perplexity", "nats"} <= cell.keys()
                assert min(cell[name] for name in own) >= 0 and cell["perplexity"] >= 1
                assert cell["perplexity"] == pytest.approx(np.exp(cell["nats"]))
        for split in ("held_in", "held_out"):
            for cell in (row[split] or {}).values():
                assert set(cell["intervals"]) <= {"accuracy_norm", "rouge_l", "nats", "byte_nats"}
                low, gap, high = (cell["intervals"]["nats"][name] for name in ("low", "difference", "high"))
                assert low - 1e-9 <= gap <= high + 1e-9
    mixed = rows["base"]["held_in"][""]  # the group of rows that have none: free text alone
    assert (
        "score" not in mixed
        and mixed["exact_match"] == rows["base"]["tasks"]["first_word"][""]["exact_match"]
    )
    zero = rows["uniform"]["held_in"]["seen"]["intervals"]["nats"]
    assert zero == {"difference": 0.0, "low": 0.0, "high": 0.0}


def test_the_report_says_what_its_numbers_are(done):
    settings, _ = done
    said = Page((Path(settings.run) / "report.html").read_text(encoding="utf-8")).text
    assert "Balanced accuracy of a choice or exact match of a written text" in said
    assert "Other measures" in said and "ROUGE-L" in said and "perplexity" in said
    for name in (*CHOICES, *WRITTEN):
        assert said.count(name) > len(METHODS)


def test_its_routers_are_whole(done):
    assert check_run.run(Path(done[0].run), None).count() == 0


def opened(settings: Config):
    """The scene and pool of a finished run, in its open folder."""
    return open_run(settings.run, plain(settings), FREE)


def test_answers_are_those_of_plain_loops(done):
    """A routed base: options weighed and texts written by whole forward passes, one at a time, no cache, no batch."""
    settings, _ = done
    with opened(settings) as folder:
        scene = make_scene(settings, folder, Console(quiet=True))
        pool = make.experts(settings, scene, folder, Console(quiet=True))
        row = next(row for row in compare.rows(settings) if row.label == METHODS[5])
        saved = compare.answer(settings, scene, pool, folder, row).found
        applied = {one.task: one for one in compare.applied(settings, scene, pool, folder, row)}
    tokenizer = scene.base.tokenizer

    @jax.jit
    def logits(arrays, tokens, mask, prompt):
        ran = run(adapted, arrays, Batch(tokens, mask, prompt))
        return jax.nn.log_softmax(head(adapted.model, arrays, ran.hidden).astype(jnp.float32))

    def ids(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    def after(request, answer):
        """log p of every token after each place of a line, in a width that serves all lines."""
        line, seen = np.zeros((1, 64), np.int32), np.arange(64)[None]
        line[0, : len(request) + len(answer)] = request + answer
        found = logits(arrays, line, seen < len(request) + len(answer), seen < len(request))
        return np.asarray(found)[0]

    for name in (*CHOICES, *WRITTEN, "animal_place"):
        adapted, arrays, task = applied[name].adapted, applied[name].arrays, scene.tasks[name]
        for i, row in enumerate(task.rows["test"][:3]):
            request = ids(row.input) + ids(f"\n{row.instruction}\n")

            def weighed(text, request=request):
                answer = ids(text)
                logp = after(request, answer)
                return sum(logp[len(request) - 1 + j, token] for j, token in enumerate(answer))

            assert saved[name]["loss"][i] == pytest.approx(-weighed(row.target), abs=1e-3)
            if name in WRITTEN:
                answer: list[int] = []
                for _ in range(5):
                    answer.append(int(after(request, answer)[len(request) + len(answer) - 1].argmax()))
                text = tokenizer.decode(answer, skip_special_tokens=True)
                assert saved[name]["exact_match"][i] == (text == row.target)
                assert saved[name]["rouge_l"][i] == pytest.approx(lcs_f(text, row.target), abs=1e-6)
                continue
            options = np.array([weighed(option) for option in task.options(row)])
            sizes = np.array([len(option) for option in task.options(row)])
            assert saved[name]["choice"][i] == options.argmax()
            assert saved[name]["choice_norm"][i] == (options / sizes).argmax()


def lcs_f(one: str, two: str) -> float:
    """F measure of the longest common subsequence of lower-case words, from its definition."""
    a, b = one.lower().replace("[", " ").replace("]", " ").split(), two.lower().split()
    table = np.zeros((len(a) + 1, len(b) + 1), int)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1, j + 1] = table[i, j] + 1 if x == y else max(table[i, j + 1], table[i + 1, j])
    most = table[-1, -1]
    return 0.0 if most == 0 else 2 * most / (len(a) + len(b))


def test_lower_layers_are_cached_exactly_where_nothing_is_written(base, tasks, tmp_path, done):
    """Choices alone, experts in the upper layer: answers from the cache are those of all layers."""
    settings = config(base, tasks, tmp_path / "run", methods=("base", "uniform", "arrow(k=2)", "own_expert"))
    choosing = replace(settings.data, held_in=CHOICES, held_out=("animal_place",))
    settings = replace(settings, data=choosing, experts=replace(settings.experts, layers=(1,)))
    assert both(settings)["measure"] == "balanced accuracy"
    assert len(list(Path(settings.run).glob("features-*.npy"))) == 2  # of the rows, and of the lines
    with opened(settings) as folder:
        scene = make_scene(settings, folder, Console(quiet=True))
        pool = make.experts(settings, scene, folder, Console(quiet=True))
        for row in compare.rows(settings):
            method = method_of(row.name)
            for one in compare.applied(settings, scene, pool, folder, row):
                assert one.asked is not None and one.asked.lines.whole.prefix is not None
                whole = replace(one.asked.lines, whole=one.asked.lines.whole._replace(prefix=None))
                arrays = one.arrays | {"params": scene.base.params}
                adapted = method.adapt(row.config, scene.base)
                np.testing.assert_allclose(
                    likelihoods(one.adapted, one.arrays, one.asked.lines, 8), likelihoods(adapted, arrays, whole, 8),
                    rtol=0, atol=1e-4,
                )  # fmt: skip
    assert not list(Path(done[0].run).glob("features-*"))  # with free text among them all layers run
    written = config(base, tasks, tmp_path / "all", experts=settings.experts, methods=("base",))
    with opened(written) as folder:
        assert make_scene(written, folder, Console(quiet=True)).top.layers == 2
    assert not list(Path(written.run).glob("features-*"))


def test_every_other_method_routes_a_decoder(base, tasks, tmp_path):
    rows = {row["row"]: row for row in both(config(base, tasks, tmp_path / "run", methods=MORE))["rows"]}
    assert tuple(rows) == MORE and not any("not_applicable" in row for row in rows.values())


def test_a_second_decoder_stands_beside_the_base(base, tasks, tmp_path, capsys):
    beside = tiny_folder.decoder(tmp_path / "beside")
    calm = "calm(connections=1, steps=2, batch=4)"
    settings = config(base, tasks, tmp_path / "run", methods=("base", calm))
    settings = replace(settings, base=replace(settings.base, beside=str(beside)))
    rows = {row["row"]: row for row in both(settings)["rows"]}
    assert rows[calm]["tasks"].keys() == {"animal_place", "last_words"}
    assert rows[calm]["cost"]["trained"] == 16 * 16 + 4 * 16 * 16  # D_A D_B + 4 D_B^2
    encoder = tiny_folder.encoder(tmp_path / "encoder")
    mixes = {"an encoder, but the base is a decoder": (base, encoder),
             "a decoder, but the base is an encoder": (encoder, base)}  # fmt: skip
    for number, (said, pair) in enumerate(mixes.items()):
        mix = replace(
            settings, run=str(tmp_path / f"mix-{number}"), base=BaseConfig(str(pair[0]), str(pair[1]))
        )
        line = ["--config", "configs/quickstart.py"]
        assert main(lambda _, mix=mix: train_script.train(mix), line, "train.py") == 2
        assert said in capsys.readouterr().err


def test_requests_that_leave_no_room_to_write_are_refused(base, tasks, tmp_path, monkeypatch):
    from moejax.evaluate import asked
    from moejax.types import UserError

    scene_base = load(base)
    shape = scene_base.model.config
    monkeypatch.setattr(type(shape), "positions", 20, raising=False)
    with pytest.raises(UserError, match=r"with evaluation.max_new 9 more exceed the 20"):
        asked.ask(scene_base, {"first_word": free_text("first_word", lambda w: w[0])}, 64, 9)


SHARED = Path(__file__).parents[1].parent / "shared" / "data"
GENERATION = ("ii_first_word_letter", "ii_sum", "gsm8k", "bbh_word_sorting")


@pytest.fixture(scope="module")
def generation(tmp_path_factory) -> Path:
    """The folder of public tasks beside the repository, read in place; where there is none, tasks of those names."""
    if (SHARED / "tasks.json").is_file():
        return SHARED
    folder = tmp_path_factory.mktemp("shared")
    long = free_text("gsm8k", lambda w: f"First we take {w[0]}.\nThen {w[1]}.\n#### 7")
    sorting = free_text("bbh_word_sorting", lambda w: " ".join(sorted(w)))
    sorting = replace(sorting, rows={**sorting.rows, "train": ()})
    write_folder(
        [
            free_text("ii_first_word_letter", lambda w: w[0][0]),
            free_text("ii_sum", lambda w: str(len(w))),
            long,
            sorting,
        ],
        folder,
    )
    return folder


def test_public_generation_tasks_are_answered_by_any_decoder(base, generation, tmp_path):
    """eval.py alone, experts given: one letter, a number, steps over several lines, a task without training rows."""
    experts = tmp_path / "experts"
    for name in GENERATION[:2]:
        own.expert(load(base), experts / name)
    words = (
        "--base", str(base), "--experts", str(experts), "--data-dir", str(generation), "--run", str(tmp_path / "run"),
        "--data.held-in", *GENERATION[:2], "--data.held-out", *GENERATION[2:], "--data.window", "512",
        "--data.train-rows", "4", "--data.validation-rows", "2", "--data.test-rows", "3",
        "--methods", "base,uniform,arrow(k=2)", "--evaluation.batch", "4", "--evaluation.max-new", "4",
        "--evaluation.stop", "####",
    )  # fmt: skip
    assert main(eval_script.evaluate, list(words), "eval.py") == 0
    found = json.loads((tmp_path / "run" / "results.json").read_text())
    assert found["measure"] == "exact match"
    for row in found["rows"]:
        assert row["tasks"].keys() == set(GENERATION)
        assert all(
            0 <= cells[""]["rouge_l"] <= 1 and cells[""]["rows"] == 3 for cells in row["tasks"].values()
        )


def small(run: Path, **changes) -> Config:
    """A run that trains its own base: two rules, one pair."""
    made = Config(
        run=str(run),
        base=BaseConfig(TRAINED, recipe=ScratchRecipe(16, 2, 2, 32, 8, Optimiser(3e-3, 4))),
        data=DataConfig(source="rules", window=16, rules=RulesConfig(0, 2, 1, 1, 6, 4, 12, 8, 4, 6)),
        experts=Recipe(rank=2, batch=4, optimiser=Optimiser(1e-2, 3)),
        methods=("base", "uniform", "token_gate(steps=2, batch=4)"), evaluation=replace(QUICK, max_new=3),
    )  # fmt: skip
    return replace(made, **changes)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    settings = small(tmp_path_factory.mktemp("scratch") / "run")
    return settings, both(settings)


def test_a_base_that_the_run_trained_is_one_like_any_other(scratch, tmp_path):
    settings, found = scratch
    folder = Path(settings.run) / "base"
    assert load(folder).fingerprint == found["keys"]["base"]
    assert check_run.run(Path(settings.run), None).count() == 0
    given = small(tmp_path / "given", base=BaseConfig(str(folder)), experts=settings.experts)
    again = both(given)
    assert [row["tasks"] for row in again["rows"]] == [row["tasks"] for row in found["rows"]]


def test_an_interrupted_base_ends_in_the_same_bits(scratch, tmp_path, monkeypatch):
    import moejax.train.work as work

    settings, found = scratch
    cut, step, calls = small(tmp_path / "cut"), work.train_step, []

    def failing(*args, **kwargs):
        calls.append(1)
        if len(calls) in (3, 6):
            raise KeyboardInterrupt
        return step(*args, **kwargs)

    monkeypatch.setattr(work, "train_step", failing)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train_script.train(cut)
    again = both(cut)
    assert len(calls) == 4 + 3 + 2 + 2
    one, two = (Path(s.run) / "base" / "model.safetensors" for s in (settings, cut))
    assert one.read_bytes() == two.read_bytes()
    assert [row["tasks"] for row in again["rows"]] == [row["tasks"] for row in found["rows"]]


def test_a_base_needs_public_rows_to_learn_of(tmp_path, capsys):
    settings = small(tmp_path / "run")
    settings = replace(settings, data=replace(settings.data, rules=replace(settings.data.rules, public=0)))
    line = ["--config", "configs/quickstart.py"]
    assert main(lambda _: train_script.train(settings), line, "train.py") == 2
    assert "no task is public" in capsys.readouterr().err


def test_told_is_the_same_in_any_batch(done):
    """Rows of unequal length, in batches of other sizes."""
    settings, _ = done
    with opened(settings) as folder:
        scene = make_scene(settings, folder, Console(quiet=True))
    base, asked = scene.base, scene.asked["last_words"]
    bare = {"params": base.params, "bank": stack([], base.shapes, base.layers), "router": {}}
    one, two = (told(Adapted(base.model), bare, asked, base.tokenizer, size, 5) for size in (3, 8))
    for name, values in one.items():
        np.testing.assert_allclose(two[name], values, atol=1e-4)
