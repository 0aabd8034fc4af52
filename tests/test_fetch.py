"""No loop of training or evaluation waits for the device but in `fetch`: nothing else may read what steps give."""

import ast
from dataclasses import replace
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import shell
import tiny
import world as worlds
from opaque import Opaque, guarded

from moejax.adapted import Adapted
from moejax.data.word_tokenizer import word_tokenizer
from moejax.embed import sentence
from moejax.evaluate import choices, completions, continuations, program, told, used
from moejax.fetch import behind, fetch
from moejax.methods import average_activation, granularity, lorahub, loraretriever
from moejax.models.encoder import EncoderConfig
from moejax.models.prompts import encode
from moejax.models.weights import random_base
from moejax.places import LINEARS, Lora, Uniform
from moejax.train import accuracy, battles, features, outcomes, work
from moejax.train.experts import Recipe, train_together
from moejax.train.optimiser import Optimiser
from moejax.train.work import Work

STEPS = {
    work: ("train_step",), program: ("best",), accuracy: ("quality",), outcomes: ("_alone", "_wants"),
    told: ("likelihood", "write"), completions: ("_first", "_more"), continuations: ("_scored",),
    choices: ("_score",), used: ("_weights",), features: ("_below",), sentence: ("_vectors",),
    average_activation: ("_add",), granularity: ("_add",), lorahub: ("cross_entropy",),
    loraretriever: ("_descend",), battles: ("descend", "ratings"),
}  # fmt: skip
"""Every jitted function whose results a loop reads."""

MINILM = EncoderConfig(vocab=30522, width=384, layers=6, heads=12, hidden=1536)
"""MiniLM-L6: what its config.json says."""


@pytest.fixture
def steps(monkeypatch):
    """All steps with opaque outputs, by name."""
    found = {}
    for module, names in STEPS.items():
        for name in names:
            made = guarded(getattr(module, name))
            monkeypatch.setattr(module, name, made)
            found[f"{module.__name__.rpartition('.')[2]}.{name}"] = made
    return found


@cache
def minilm():
    """The quickstart's base with random weights, and label vectors."""
    vectors = np.random.default_rng(1).normal(size=(8, MINILM.width)).astype(np.float32)
    return replace(random_base(MINILM), labels=jnp.asarray(vectors), embedder=tiny.Embedder())


def base_of(name):
    return minilm() if name == "minilm" else tiny.base(name)


def recipe(name):
    """A few steps; of MiniLM those of the quickstart's layers."""
    layers = (4, 5) if name == "minilm" else None
    return Recipe(rank=2, layers=layers, batch=2, optimiser=Optimiser(1e-2, 3), targets=("layers/attn/q",))


def trained(name, folder):
    base = base_of(name)
    rows = {who: tiny.rows(base, 5 + i, seed=i) for i, who in enumerate(("ann", "bob", "cy"))}
    return train_together(base, rows, recipe(name), Work(folder))


@pytest.mark.parametrize("name", ["encoder", "decoder", "minilm"])
def test_training_reads_nothing_between_its_steps(name, tmp_path, steps):
    with worlds.compiles() as programs:
        found = trained(name, tmp_path / "guarded")
    assert steps["work.train_step"].ran == 3
    assert programs.count("jit(train_step)") <= 1  # all experts in one program
    with pytest.MonkeyPatch.context() as own:
        own.setattr(work, "train_step", work.train_step.__wrapped__)
        plain = trained(name, tmp_path / "plain")
    for who, one in plain.items():
        for site, lora in one.loras.items():
            assert all(map(np.array_equal, lora[:2], found[who].loras[site][:2]))


def test_a_loss_that_is_read_within_the_loop_is_met(tmp_path, steps):
    """What the tests of this file would say of a `float(loss)` in the loop."""
    step = work.train_step

    def reading(*args, **options):
        state, loss = step(*args, **options)
        float(loss)
        return state, loss

    with pytest.MonkeyPatch.context() as own:
        own.setattr(work, "train_step", reading)
        with pytest.raises(AssertionError, match="of a step's output outside of fetch"):
            trained("encoder", tmp_path)


@pytest.mark.parametrize(
    "read",
    [float, int, bool, np.asarray, np.isfinite, jnp.sum, str, list, lambda x: x.item(), lambda x: [0, 1][x],
     lambda x: np.concatenate([x, x]), lambda x: f"{x:.2f}", lambda x: x + 1, lambda x: x[0], jax.device_get,
     jax.block_until_ready, lambda x: x == 1],
)  # fmt: skip
def test_an_output_can_be_read_in_no_other_way(read):
    one = guarded(jax.jit(lambda x: x + 1))(jnp.int32(1))
    with pytest.raises((AssertionError, TypeError), match="outside of fetch|as an abstract array"):
        read(one)
    assert fetch({"a": [one, None, 3]}) == {"a": [2, None, 3]}
    assert type(fetch(one)) is np.ndarray


@pytest.mark.parametrize("name", ["encoder", "minilm"])
def test_answers_and_their_quality_are_read_at_the_end(name, steps, tmp_path):
    base = base_of(name)
    pool, rows = tiny.pool(base, "ann", "bob"), tiny.rows(base, 5, seed=3)
    adapted = Adapted(base.model, ((LINEARS, Lora("output", Uniform())),))
    arrays = {"params": base.params, "bank": pool.bank, "router": {}, "labels": base.labels}
    assert program.answers(adapted, arrays, rows, 2).shape == (5,)
    assert accuracy.qualities(adapted, arrays, rows, 2, most=3).shape == (2, 3)
    matrix = outcomes.outcomes(base, pool, rows, 2, Work(tmp_path))
    assert matrix.choice.shape == (5, 4) and np.isfinite(matrix.likelihood).all()
    found = features.features(base.model, base.params, rows.whole, 1, tmp_path / "features.npy", batch=2)
    assert found.shape == (5, 12, base.model.config.width)
    ran = {short: one.ran for short, one in steps.items() if one.ran}
    assert ran == {"program.best": 3, "accuracy.quality": 2, "outcomes._alone": 3 * 4, "features._below": 3}


def test_a_decoder_is_asked_without_a_look_in_between(steps):
    base, fit = tiny.base("decoder"), worlds.fitted("decoder", "uniform")
    rows, tokenizer = tiny.rows(base, 5, seed=3), word_tokenizer([])
    assert np.isfinite(told.likelihoods(fit.adapted, fit.arrays, rows, 2)).all()
    assert len(told.written(fit.adapted, fit.arrays, rows, tokenizer, 2, 3)) == 5
    assert steps["told.likelihood"].ran == steps["told.write"].ran == 3


def test_completions_are_read_once_a_chunk_and_continuations_once(steps):
    made = shell.made("arrow(k=2)")
    prompts = [encode(made.base, text) for text in ("the ant ", "so are bees", "c")]
    settings = completions.Settings(max_new=8, chunk=3, batch=2, stop=("never there",))
    found = completions.complete(made.base, made.adapted, made.arrays, prompts, settings)
    assert len(found) == 3
    assert steps["completions._first"].ran == 2 and steps["completions._more"].ran >= 2
    pairs = [(prompt, [5, 6]) for prompt in prompts]
    assert len(continuations.continuations(made.base, made.adapted, made.arrays, pairs, 2, 16)) == 3
    assert steps["continuations._scored"].ran == 2
    answers = [one.tokens for one in found]
    names = [f"e{i}" for i in range(made.arrays["bank"].alive.size)]
    assert len(used.used(made.base, made.adapted, made.arrays, names, prompts, answers)) == 3
    assert steps["used._weights"].ran >= 1


@pytest.mark.parametrize(
    ("line", "step"),
    [("average_activation", "average_activation._add"), ("granularity(task)", "granularity._add"),
     ("lorahub", "lorahub.cross_entropy"), ("loraretriever", "loraretriever._descend"),
     ("routellm", "battles.descend"), ("routellm(sw)", "battles.ratings"), ("mole", "work.train_step")],
)  # fmt: skip
def test_methods_fit_without_a_look_at_what_their_steps_give(line, step, steps):
    fit = worlds.fit(worlds.standard("encoder"), line)
    assert steps[step].ran
    assert not any(type(leaf) is Opaque for leaf in jax.tree.leaves(fit.arrays))


def test_what_is_read_one_late_comes_in_order():
    log = []

    def results():
        for number in range(4):
            log.append(f"sent {number}")
            yield number, jnp.int32(number)

    for number, value in behind(results()):
        assert type(value) is np.ndarray and value == number
        log.append(f"read {number}")
    assert log == ["sent 0", "sent 1", "read 0", "sent 2", "read 1", "sent 3", "read 2", "read 3"]
    assert list(behind([])) == []


def test_only_fetch_names_what_waits_for_the_device():
    """Besides: the cost of a batch is timed, and a base is loaded leaf by leaf."""
    root, waits = (
        Path(__file__).parents[1] / "moejax",
        {"device_get", "block_until_ready", "copy_to_host_async", "item"},
    )
    named = {}
    for path in root.rglob("*.py"):
        called = {
            node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)
        }
        if called & waits:
            named[str(path.relative_to(root))] = called & waits
    assert named == {
        "fetch.py": {"device_get"},
        "evaluate/program.py": {"block_until_ready"},
        "models/weights.py": {"block_until_ready"},
    }
