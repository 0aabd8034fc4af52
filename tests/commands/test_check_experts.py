"""Experts: every bad one by name, and of the others the load report, with a base and without."""

import json

import numpy as np
import own
import pytest
from safetensors.numpy import load_file, save_file

from moejax.commands import check_base
from moejax.commands.check_experts import NO_BASE, expert, experts
from moejax.experts import extras
from moejax.experts.folder import EXTRAS, WEIGHTS
from moejax.experts.pool import read_pool
from moejax.models.weights import load


@pytest.fixture
def root(tmp_path):
    """A folder with `base` and `experts`."""
    return own.everything(tmp_path)


def change(folder, make, file=WEIGHTS):
    tensors = load_file(folder / file)
    save_file({name: make(name, value) for name, value in tensors.items()}, folder / file)


def spoil(root):
    """Four more experts, each wrong in its own way."""
    base = load(root / "base")
    for name in ("nan", "wide", "pickle", "zero"):
        own.expert(base, root / "experts" / name)
    folder = root / "experts"
    change(folder / "nan", lambda name, value: value * (np.nan if name.endswith("lora_A.weight") else 1))
    change(folder / "wide", lambda name, value: np.concatenate([value, value], axis=-1))
    (folder / "pickle" / WEIGHTS).rename(folder / "pickle" / "adapter_model.bin")
    change(folder / "zero", lambda name, value: value * (0 if "lora_B" in name else 1))
    return base


@pytest.mark.parametrize("with_base", [True, False])
def test_every_bad_expert_is_a_fault_and_the_good_are_reported(root, with_base):
    base = spoil(root)
    found = experts(root / "experts", base if with_base else None)
    assert found.what.endswith("2 of 6 experts can be read")
    assert len(found.faults) == 4
    for name, words in {
        "nan": "holds NaN", "wide": "has shape", "pickle": "only a pickle", "zero": "every lora_B is zero",
    }.items():  # fmt: skip
        assert [fault for fault in found.faults if f"/{name}/" in fault and words in fault], words
    assert [line.split(":")[0] for line in found.lines] == ["animal", "ann"]
    for line in found.lines:
        for words in ("2 modules", "scale 2", "norm", "pool's median"):
            assert words in line
    assert (NO_BASE in found.warnings) is not with_base


def test_with_a_base_another_base_and_unknown_modules_are_faults(root, tmp_path):
    other = load(root / "base")
    own.expert(other, root / "experts" / "cy")
    info = root / "experts" / "cy" / "moejax.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"base": "sha256:other"}))
    renamed = root / "experts" / "ann"
    tensors = load_file(renamed / WEIGHTS)
    save_file(
        {name.replace("layer.1", "layer.7"): value for name, value in tensors.items()}, renamed / WEIGHTS
    )
    config = json.loads((renamed / "adapter_config.json").read_text())
    config["target_modules"] = [name.replace("layer.1", "layer.7") for name in config["target_modules"]]
    (renamed / "adapter_config.json").write_text(json.dumps(config))
    found = experts(root / "experts", other)
    assert ["module that the base does not have" in fault for fault in found.faults] == [True, False]
    assert "trained on base sha256:other" in found.faults[1]
    assert experts(root / "experts", None).faults == [], "without a base nobody can tell"


def test_what_stands_out_in_a_pool_is_warned_of(root):
    base = load(root / "base")
    own.expert(base, root / "experts" / "loud")
    change(root / "experts" / "loud", lambda name, value: value * 100)
    info = root / "experts" / "loud" / "moejax.json"
    info.write_text(json.dumps({k: v for k, v in json.loads(info.read_text()).items() if k != "hash"}))
    own.expert(base, root / "experts" / "animal_copy")
    for file in (WEIGHTS, "adapter_config.json", "moejax.json"):
        (root / "experts" / "animal_copy" / file).write_bytes(
            (root / "experts" / "animal" / file).read_bytes()
        )
    for given in (base, None):
        said = "\n".join(experts(root / "experts", given).warnings)
        assert "'loud' has" in said and "times the pool's median norm" in said
        assert "experts 'animal' and 'animal_copy' hold the same weights" in said


def test_one_expert_alone_has_no_median(root):
    base = load(root / "base")
    found = expert(root / "experts" / "ann", base)
    assert found.lines == [found.lines[0]] and "median" not in found.lines[0]
    assert found.faults == found.warnings == []
    change(root / "experts" / "ann", lambda name, value: value * 2)
    (fault,) = expert(root / "experts" / "ann", base).faults
    assert "not what moejax.json recorded as `hash`" in fault
    assert expert(root / "experts" / "ann", None).faults == []


@pytest.mark.parametrize("with_base", [True, False])
def test_extras_are_read_too(root, with_base):
    base = load(root / "base")
    pool, _ = read_pool(root / "experts", base.sites, base.shapes, base.layers, base.fingerprint)
    gates = {path: np.ones((s.a.shape[0], s.a.shape[-1])) for path, s in pool.bank.sites.items()}
    pool.with_extras({"ann": {"gate": gates, "samples": [{"text": "a"}]}}).save_extras(root / "experts")
    given = base if with_base else None
    assert experts(root / "experts", given).lines[1].endswith(", extras gate, samples")
    assert extras.names(root / "experts" / "ann") == {"gate", "samples"}
    change(root / "experts" / "ann", lambda name, value: value * np.inf, EXTRAS)
    (fault,) = experts(root / "experts", given).faults
    assert "ann/moejax_extras.safetensors" in fault and "holds NaN or infinity" in fault


def test_modules_without_weights_and_zero_tensors_are_named(root):
    base, folder = load(root / "base"), root / "experts" / "ann"
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(
        json.dumps(config | {"target_modules": ["query", "output.dense"]})
    )
    change(folder, lambda name, value: value * (0 if "query.lora_B" in name else 1))
    (folder / "moejax.json").unlink()
    said = "\n".join(expert(folder, base).lines)
    assert "targeted without weights: encoder.layer.0.attention.self.query" in said
    assert "zero: base_model.model.encoder.layer.1.attention.self.query.lora_B.weight" in said


def test_names_that_differ_only_in_case_and_empty_folders_are_faults(root, tmp_path, monkeypatch):
    base = load(root / "base")
    own.expert(base, root / "experts" / "Ann")
    assert ["differ only in case" in fault for fault in experts(root / "experts", base).faults] == [True]
    (tmp_path / "none").mkdir()
    assert ["no expert in it" in fault for fault in experts(tmp_path / "none", base).faults] == [True]


def test_without_a_flag_the_base_that_the_folder_names_is_taken_if_at_hand(root, monkeypatch):
    monkeypatch.setattr(check_base.minilm, "installed", lambda: root / "base")
    assert NO_BASE not in experts(root / "experts", None).warnings
