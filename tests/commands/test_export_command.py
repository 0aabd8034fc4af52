"""`python -m moejax export`, `extract` and the forms of `merge`: what is written, said, and refused."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file, save_file

from moejax.__main__ import run
from moejax.experts import lora
from moejax.experts.checkpoint import INDEX
from moejax.experts.compress import compress
from moejax.experts.files import read, write
from moejax.experts.folder import CONFIG
from moejax.models.weights import load, save


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A base, an expert of it, and a folder to work in."""
    base = tiny.base("encoder")
    save(base, tmp_path / "base")
    base = load(tmp_path / "base")
    expert = tiny.expert(base, "ann", rank=3)
    write(tmp_path / "ann", expert, base.sites, fingerprint=base.fingerprint)
    monkeypatch.chdir(tmp_path)
    return base, expert


def said(capsys, *words):
    assert run(list(words)) == 0
    return capsys.readouterr().out


def error(capsys, *words):
    assert run(list(words)) == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    return text


def test_an_expert_is_written_for_peft(here, capsys):
    base, expert = here
    out = said(capsys, "export", "ann", "out", "--base", "base")
    assert "out: 3 modules, rank 3\n" in out and "unverified" not in out
    found, _ = read("out", base.sites, base.shapes, base.fingerprint)
    assert all(np.array_equal(found.loras[site].a, one.a) for site, one in expert.loras.items())
    config = json.loads(Path("out", CONFIG).read_text())
    assert config["base_model_name_or_path"] == "base" and config["task_type"] == "FEATURE_EXTRACTION"


def test_a_smaller_one_with_the_true_error(here, capsys):
    base, expert = here
    out = said(capsys, "export", "ann", "out", "--base", "base", "--rank", "1")
    (number,) = re.findall(r"rank 1, relative error ([\d.e-]+) \(at most [\d.e-]+, at layers/", out)
    assert float(number) == pytest.approx(compress(expert, 1).error, rel=1e-2)
    assert {len(one.a) for one in read("out", base.sites, base.shapes, None)[0].loras.values()} == {1}


def test_a_whole_model_in_shards(here, capsys):
    base, expert = here
    out = said(capsys, "export", "ann", "out", "--base", "base", "--full", "--shard", "0.000005")
    assert re.search(r"out: the base with 3 modules changed, float32, \d+ files", out)
    assert json.loads(Path("out", INDEX).read_text())["weight_map"]
    after = load("out").params["layers"]["mlp"]["down"]["kernel"]
    change = after - base.params["layers"]["mlp"]["down"]["kernel"]
    np.testing.assert_allclose(change[1], lora.delta(expert.loras[tiny.ON_TOP, 1]), rtol=0, atol=1e-6)


def test_a_whole_model_is_taken_apart_again(here, capsys):
    base, expert = here
    said(capsys, "export", "ann", "whole", "--base", "base", "--full")
    out = said(capsys, "extract", "base", "whole", "out", "--energy", ".999999")
    assert re.search(r"out: 3 modules, rank 3 to 3, relative error [\d.e-]+ \(at most", out)
    assert "left out" not in out
    found, _ = read("out", base.sites, base.shapes, base.fingerprint)
    assert found.info["provenance"] == "moejax extract"
    for site, one in expert.loras.items():
        np.testing.assert_allclose(lora.delta(found.loras[site]), lora.delta(one), rtol=0, atol=1e-5)


def test_what_lies_outside_the_linears_is_told(here, capsys):
    _, _ = here
    said(capsys, "export", "ann", "whole", "--base", "base", "--full")
    tensors = load_file("whole/model.safetensors")
    save_file(
        tensors | {"embeddings.LayerNorm.weight": tensors["embeddings.LayerNorm.weight"] + 1},
        "whole/model.safetensors",
    )
    out = said(capsys, "extract", "base", "whole", "out", "--rank", "2")
    assert "left out: 1 tensors that no LoRA can change, embeddings.LayerNorm.weight first: 0." in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["export", "ann", "base", "--base", "base"], "base is there already"),
        (["export", "nobody", "out", "--base", "base"], "nobody: no such folder"),
        (["export", "base", "out", "--base", "base"], "no tensor differs from the base"),
        (["export", "ann", "out", "--base", "base", "--rank", "-1"], "expected a rank of at least 1"),
        (["export", "ann", "out", "--base", "base", "--energy", "1.5"], "a share up to 1"),
        (["export", "ann", "out", "--base", "base", "--full", "--shard", "0"], "expected GB above 0"),
        (["extract", "base", "base", "out", "--rank", "2"], "no linear differs from the base"),
        (["extract", "base", "ann", "out", "--rank", "2"], "config.json is missing"),
        (["extract", "base", "base", "out"], "Say --energy .99, --rank 16, or both"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(here, capsys, words, says):
    assert says in error(capsys, *words)
