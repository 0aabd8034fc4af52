"""Layouts of a PEFT file: prefixes, infixes and wrappers that its versions and models leave in names."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from moejax.experts import peft_names
from moejax.experts.content_hash import content_hash
from moejax.experts.files import read, write
from moejax.experts.folder import CONFIG, WEIGHTS
from moejax.experts.read import read_modules
from moejax.types import UserError


def renamed(folder, change, **config):
    """The folder with other names of tensors."""
    save_file({change(key): value for key, value in load_file(folder / WEIGHTS).items()}, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(json.loads((folder / CONFIG).read_text()) | config))


@pytest.fixture
def folder(tiny, tmp_path):
    write(tmp_path / "mine", tiny.expert("mine"), tiny.sites)
    return tmp_path / "mine"


LAYOUTS = {
    "adapter's name": lambda k: k.replace("lora_A", "lora_A.default").replace("lora_B", "lora_B.default"),
    "prefix twice": lambda k: "base_model.model." + k,
    "no prefix": lambda k: k.removeprefix("base_model.model."),
    "compiled": lambda k: k.replace("base_model.model.", "base_model.model._orig_mod."),
    "all of it": lambda k: ("base_model.model._orig_mod." + k).replace(".weight", ".mine.weight"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_the_same_expert(tiny, folder, layout):
    renamed(folder, LAYOUTS[layout])
    expert, report = read(folder, tiny.sites, tiny.shapes, tiny.fingerprint)
    assert expert.info["hash"] == content_hash(tiny.expert("mine").parts) and report.verified


def test_the_wrapper_of_a_model_with_a_head_is_seen_through(tiny, folder):
    """Trained on BertForSequenceClassification: `bert.` in front, and patterns with it."""
    wrapped = lambda k: k.replace("base_model.model.", "base_model.model.bert.")  # noqa: E731
    renamed(
        folder, wrapped, target_modules=r"bert\.encoder\..*(query|intermediate\.dense)",
        rank_pattern={r"^bert\.encoder\.layer\.2\..*": 3}, alpha_pattern={r"^bert\.encoder\.layer\.2\..*": 6},
    )  # fmt: skip
    expert, report = read(folder, tiny.sites, tiny.shapes, tiny.fingerprint)
    assert expert.info["hash"] == content_hash(tiny.expert("mine").parts)
    assert report.matched == ("encoder.layer.1.attention.self.query", "encoder.layer.2.intermediate.dense")
    assert "encoder.layer.0.attention.self.query" in report.unmatched


def test_a_lora_of_the_bare_model_fits_the_one_with_a_head(folder, tiny):
    """The other way round: the base's names have a prefix that the file's lack."""
    sites = {f"bert.{name}": site for name, site in tiny.sites.items()}
    expert, _ = read(folder, sites, tiny.shapes, tiny.fingerprint)
    assert expert.info["hash"] == content_hash(tiny.expert("mine").parts)


def test_what_could_be_two_modules_is_refused(folder, tiny):
    sites = {f"{side}.{name}": site for side in ("one", "two") for name, site in tiny.sites.items()}
    with pytest.raises(UserError, match="is for a module that the base does not have"):
        read(folder, sites, tiny.shapes, tiny.fingerprint)


def test_a_mix_of_wrapped_and_bare_names_is_refused(folder, tiny):
    renamed(
        folder,
        lambda k: k.replace("model.encoder.layer.1", "model.bert.encoder.layer.1"),
        target_modules="all-linear",
    )
    with pytest.raises(
        UserError, match="'base_model.model.bert.encoder.layer.1.*' is for a module that the base does not"
    ):
        read(folder, tiny.sites, tiny.shapes, tiny.fingerprint)


def test_names_of_leaves():
    assert peft_names.parse("base_model.model.a.b.lora_A.weight") == ("a.b", "lora_A.weight", "")
    assert peft_names.parse("a.lora_B.x.bias") == ("a", "lora_B.bias", "x")
    for key in ("a.lora_A.bias", "lora_A.weight", "a.lora_C.weight", "a.weight", "a.lora_A.x.y.weight"):
        assert peft_names.parse(key) is None


@pytest.mark.parametrize(
    ("module", "d", "f", "config"),
    [
        ("transformer.h.{}.attn.c_attn", 8, 24, {"fan_in_fan_out": True, "target_modules": ["c_attn"]}),
        ("model.layers.{}.self_attn.qkv_proj", 8, 16, {"target_modules": ["qkv_proj", "gate_up_proj"]}),
        ("decoder.block.{}.layer.0.SelfAttention.q", 8, 8, {"target_modules": ["q", "v"]}),
    ],
)
def test_fused_and_turned_projections_are_one_site(tmp_path, module, d, f, config):
    """PEFT's factors are [r, in] and [out, r] whatever way the base's weight lies."""
    names = [module.format(i) for i in range(2)]
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 4, d)).astype(np.float32), rng.normal(size=(2, f, 4)).astype(np.float32)
    (tmp_path / CONFIG).write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8} | config))
    tensors = {f"base_model.model.{name}.lora_A.weight": a[i] for i, name in enumerate(names)}
    tensors |= {f"base_model.model.{name}.lora_B.weight": b[i] for i, name in enumerate(names)}
    save_file(tensors, tmp_path / WEIGHTS)
    sites = {name: ("layers/one", i) for i, name in enumerate(names)}
    expert, report = read(tmp_path, sites, {"layers/one": (d, f)}, None, name="mine")
    assert report.matched == tuple(names)
    for i in range(2):
        one = expert.loras["layers/one", i]
        assert one.a.tolist() == a[i].tolist() and one.b.tolist() == b[i].T.tolist()
    with pytest.raises(UserError, match="has shape"):
        read(
            tmp_path,
            sites,
            {"layers/one": (f, d)} if d != f else {"layers/one": (d, f + 1)},
            None,
            name="mine",
        )


def test_modules_saved_whole_are_refused_or_left_aside(tiny, folder):
    more = {
        "base_model.model.classifier.weight": np.ones((2, 8)),
        "base_model.model.classifier.modules_to_save.bias": np.ones(2),
    }
    save_file(load_file(folder / WEIGHTS) | more, folder / WEIGHTS)
    (folder / CONFIG).write_text(
        json.dumps(json.loads((folder / CONFIG).read_text()) | {"modules_to_save": ["classifier", "score"]})
    )
    with pytest.raises(
        UserError, match="modules_to_save is set: .* or say --ignore-saved-modules to take its LoRAs"
    ):
        read(folder, tiny.sites, tiny.shapes, tiny.fingerprint)
    expert, report = read(folder, tiny.sites, tiny.shapes, tiny.fingerprint, ignore_saved=True)
    assert expert.info["hash"] == content_hash(tiny.expert("mine").parts)
    assert any("2 tensors of modules saved whole are left aside" in said for said in report.warnings)
    assert read_modules(folder, ignore_saved=True).parts.keys() == set(report.matched)
    (folder / CONFIG).write_text(
        json.dumps(json.loads((folder / CONFIG).read_text()) | {"modules_to_save": ["query"]})
    )
    with pytest.raises(UserError, match="unknown tensor 'base_model.model.classifier"):
        read(folder, tiny.sites, tiny.shapes, tiny.fingerprint, ignore_saved=True)
