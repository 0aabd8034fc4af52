"""`python -m moejax merge`: the adapter that a router makes, written for PEFT, or one sentence why not."""

import json
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import own
import pytest

from moejax import methods
from moejax.__main__ import run
from moejax.config import BaseConfig, Config, plain
from moejax.contract import Fitted
from moejax.evaluate import router_file
from moejax.experts.files import read
from moejax.experts.pool import read_pool
from moejax.models.weights import load
from moejax.train.run_folder import open_run


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A base, experts, and a run of both with routers."""
    root = own.everything(tmp_path_factory.mktemp("run"))
    base = load(root / "base")
    pool, _ = read_pool(root / "experts", base.sites, base.shapes, base.layers, base.fingerprint)
    searched = {"weights": jnp.asarray([0.5, -1.0]), "experts": jnp.asarray([1, 0])}
    routers = {
        "uniform": {},
        "arrow": {},
        "lorahub@new": {"model": searched},
        "zero": {"model": {**searched, "weights": jnp.zeros(2)}},
    }
    with open_run(root / "run", plain(Config(base=BaseConfig(source=str(root / "base"))))) as opened:
        shutil.copytree(root / "experts", root / "run" / "experts")
        for name, model in routers.items():
            method = methods.load({"zero": "lorahub"}.get(name, name.partition("@")[0]))
            fitted = Fitted({"places": {}, "knobs": {}} | model, pool.names)
            router_file.save(opened.router(name), method, method.Config(), base, pool, fitted)
    return root


def merge(made, router, out, *more):
    return run(["merge", str(made / "run" / "routers" / router), str(out), *more])


def test_the_adapter_has_the_factors_of_the_merge(made, tmp_path, capsys):
    assert merge(made, "lorahub@new", tmp_path / "merged") == 0
    base = load(made / "base")
    found, report = read(tmp_path / "merged", base.sites, base.shapes, base.fingerprint)
    experts = [
        read(path, base.sites, base.shapes, base.fingerprint)[0]
        for path in sorted((made / "experts").iterdir())
        if path.is_dir()
    ]
    assert found.info["base"] == base.fingerprint and not report.warnings
    assert found.loras.keys() == experts[0].loras.keys() | experts[1].loras.keys()
    for site, one in found.loras.items():
        a = b = 0.0
        for expert, w in zip(experts, (-1.0, 0.5), strict=True):
            if site in expert.loras:
                lora = expert.loras[site]
                scale = lora.alpha / len(lora.a)
                size = max(len(other.loras[site].a) for other in experts if site in other.loras)
                fill = ((0, size - len(lora.a)), (0, 0))
                a, b = a + w * np.pad(lora.a, fill), b + w * scale * np.pad(lora.b, fill)
        mine = one.alpha / len(one.a) * one.a.T @ one.b
        np.testing.assert_allclose(mine, a.T @ b, rtol=0, atol=1e-5 * np.abs(a.T @ b).max())
    said = capsys.readouterr().out
    assert (
        f"{len(found.loras)} modules, rank " in said
        and "; factor of " in said
        and "-1 " in said
        and "0.5 " in said
    )


def test_a_uniform_merge_of_outputs_has_the_sum_of_the_ranks(made, tmp_path):
    assert merge(made, "uniform", tmp_path / "mean") == 0
    config = json.loads((tmp_path / "mean" / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
    info = json.loads((tmp_path / "mean" / "moejax.json").read_text())
    assert info["description"].startswith("uniform over ")


def test_a_merge_may_be_smaller_or_a_whole_model(made, tmp_path, capsys):
    assert merge(made, "uniform", tmp_path / "small", "--rank", "1") == 0
    assert "rank 1, relative error 0." in capsys.readouterr().out
    assert merge(made, "uniform", tmp_path / "whole", "--full") == 0
    assert "the base with" in capsys.readouterr().out
    base, whole = load(made / "base"), load(tmp_path / "whole")
    assert merge(made, "uniform", tmp_path / "mean") == 0
    mean, _ = read(tmp_path / "mean", base.sites, base.shapes, base.fingerprint)
    for (path, layer), one in mean.loras.items():
        before, after = base.params, whole.params
        for step in path.split("/"):
            before, after = before[step], after[step]
        change = after["kernel"][layer] - before["kernel"][layer]
        np.testing.assert_allclose(change, one.a.T @ one.b, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("router", "said"),
    [
        (
            "arrow",
            "the weights of arrow vary from request to request, so that no one adapter does what it does",
        ),
        ("zero", "its weights are zero, so that the merge is the bare base: nothing to write"),
        ("nothing", "not a whole router"),
    ],
)
def test_what_cannot_be_merged_is_said_in_one_sentence(made, tmp_path, capsys, router, said):
    assert merge(made, router, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_nothing_is_overwritten(made, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    assert merge(made, "uniform", tmp_path / "out") == 2
    assert "is there already" in capsys.readouterr().err


def test_without_its_run_a_router_needs_base_and_experts(made, tmp_path, capsys):
    shutil.copytree(made / "run" / "routers" / "uniform", tmp_path / "a" / "b" / "uniform")
    words = ["merge", str(tmp_path / "a" / "b" / "uniform"), str(tmp_path / "out")]
    assert run(words) == 2 and "say --base FOLDER" in capsys.readouterr().err
    assert run([*words, "--base", str(made / "base"), "--experts", str(made / "experts")]) == 0


def test_another_expert_than_at_the_fit_is_refused(made, tmp_path, capsys):
    shutil.copytree(made / "run", tmp_path / "run")
    gone = sorted((tmp_path / "run" / "experts").iterdir())[0]
    shutil.rmtree(gone)
    assert run(["merge", str(tmp_path / "run" / "routers" / "lorahub@new"), str(tmp_path / "out")]) == 2
    assert f"fitted with expert {gone.name!r}, which the pool lacks" in capsys.readouterr().err
