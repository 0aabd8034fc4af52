"""Bases: all of the tensors that are wrong, and which base experts are compared with."""

import json
import shutil

import numpy as np
import own
import pytest
import tiny_folder
from safetensors.numpy import load_file, save_file

from moejax.commands import check_base
from moejax.models.weights import load
from moejax.types import UserError


@pytest.fixture
def folder(tmp_path):
    return tiny_folder.encoder(tmp_path / "base")


def test_every_wrong_tensor_is_a_fault(folder):
    weights = load_file(folder / "model.safetensors")
    names = sorted(name for name in weights if name.endswith("query.weight"))
    del weights[names[0]]
    weights[names[1]] = weights[names[1]][:, :8].copy()
    weights["embeddings.LayerNorm.bias"] = np.full(16, np.nan, np.float32)
    save_file(weights, folder / "model.safetensors")
    found = check_base.base(folder)
    assert len(found.faults) == 3
    said = "\n".join(found.faults)
    assert f"no {names[0]}" in said
    assert f"{names[1]} is [16, 8]" in said
    assert "embeddings.LayerNorm.bias holds a NaN" in said
    assert found.lines == []


def test_a_config_that_is_not_understood_is_the_fault(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "mystery"}))
    assert ["model_type is 'mystery'" in fault for fault in check_base.base(folder).faults] == [True]
    (folder / "config.json").unlink()
    assert ["config.json is missing" in fault for fault in check_base.base(folder).faults] == [True]


def test_a_missing_tokenizer_is_a_fault_beside_the_others(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()
    (folder / "model.safetensors").write_bytes(b"x")
    first, second = check_base.base(folder).faults
    assert "truncated or no safetensors file" in first
    assert "no tokenizer can be read (there is none of tokenizer.json" in second


def test_a_tokenizer_of_a_larger_base_is_a_fault(folder):
    other = json.loads((folder / "tokenizer.json").read_text())
    other["model"]["vocab"]["onewordmore"] = len(other["model"]["vocab"])
    (folder / "tokenizer.json").write_text(json.dumps(other))
    (fault,) = check_base.base(folder).faults
    assert "the tokenizer has 917 tokens, the model 916" in fault


def test_a_sound_base_is_described(folder, tmp_path):
    found = check_base.base(folder)
    assert found.faults == []
    assert found.lines[0].startswith("encoder: 2 layers of width 16")
    assert load(folder).fingerprint in found.lines[1]
    decoder = check_base.base(tiny_folder.decoder(tmp_path / "decoder"))
    assert decoder.faults == []
    assert decoder.lines[0].startswith("decoder: 2 layers of width 16")


def test_experts_of_minilm_are_compared_with_it_where_it_is_installed(folder, tmp_path, monkeypatch):
    expert = own.expert(load(folder), tmp_path / "experts" / "ann")
    assert check_base.named_by([expert]) is None
    monkeypatch.setattr(check_base.minilm, "installed", lambda: folder)
    base = check_base.named_by([expert])
    assert base is not None and base.fingerprint == load(folder).fingerprint
    assert check_base.load("minilm").fingerprint == base.fingerprint
    (expert / "moejax.json").write_text("[]")
    assert check_base.named_by([expert]) is None
    shutil.rmtree(expert)
    assert check_base.named_by([expert]) is None

    def missing():
        raise UserError("not installed")

    monkeypatch.setattr(check_base.minilm, "installed", missing)
    assert check_base.named_by([own.expert(base, tmp_path / "bob")]) is None
