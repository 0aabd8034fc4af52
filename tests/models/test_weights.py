"""Bases from folders and back; the fingerprint."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from family_cases import CASES
from safetensors.numpy import load_file, save_file

from moejax.models.base import fingerprint
from moejax.models.configs import configure, hf_config
from moejax.models.decoder import DecoderConfig
from moejax.models.encoder import EncoderConfig
from moejax.models.layers import Rotary
from moejax.models.weights import hf_tensors, load, make_model, random_base, save
from moejax.types import UserError

ENCODER = EncoderConfig(vocab=30, width=16, layers=3, heads=2, hidden=24, positions=20)
DECODER = DecoderConfig(vocab=30, width=16, layers=3, heads=4, kv_heads=2, hidden=24)
OPTIONS = {
    "bert": ENCODER,
    "tanh": dataclasses.replace(ENCODER, activation="gelu_tanh", types=1, eps=1e-5),
    "llama": DECODER,
    "tied": dataclasses.replace(DECODER, tied=True, head_dim=8),
    "biased": dataclasses.replace(DECODER, qkv_bias=True, out_bias=True, mlp_bias=True),
    "qwen2": dataclasses.replace(DECODER, qkv_bias=True),
    "mistral": dataclasses.replace(DECODER, window=5),
    "linear": dataclasses.replace(DECODER, rotary=Rotary(5e5, "linear", 4.0)),
    "llama3": dataclasses.replace(DECODER, rotary=Rotary(5e5, "llama3", 8.0, 1.0, 4.0, 64)),
    **{
        name: dataclasses.replace(
            case.config, head_dim=case.config.block.head_dim if case.family[:4] in ("qwen", "gemm") else None
        )
        if isinstance(case.config, DecoderConfig)
        else case.config
        for name, case in CASES.items()
        if case.family not in ("llama", "mistral", "bert")
    },
}


@pytest.mark.parametrize("config", OPTIONS.values(), ids=OPTIONS)
def test_saved_and_loaded_is_the_same_base(config, tmp_path):
    base = random_base(config)
    save(base, tmp_path)
    again = load(tmp_path)
    assert again.model == base.model
    assert again.fingerprint == base.fingerprint
    assert (again.sites, again.shapes) == (base.sites, base.shapes)
    jax.tree.map(np.testing.assert_array_equal, again.params, base.params)
    assert again.folder == str(tmp_path) and base.folder is None and base.tokenizer is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_sites_carry_hugging_face_names():
    encoder, decoder = random_base(ENCODER), random_base(DECODER)
    assert (encoder.kind, decoder.kind, encoder.layers) == ("encoder", "decoder", 3)
    assert encoder.sites["encoder.layer.2.attention.self.query"] == ("layers/attn/q", 2)
    assert encoder.sites["encoder.layer.0.output.dense"] == ("layers/mlp/down", 0)
    assert decoder.sites["model.layers.1.self_attn.k_proj"] == ("layers/attn/k", 1)
    assert len(encoder.sites) == 3 * 6 and len(decoder.sites) == 3 * 7
    assert decoder.shapes["layers/attn/k"] == (16, 8)
    assert decoder.shapes["layers/mlp/down"] == (24, 16)
    tensors = hf_tensors(decoder)
    for name, (path, layer) in decoder.sites.items():
        kernel = decoder.params["layers"][path.split("/")[1]][path.split("/")[2]]["kernel"][layer]
        np.testing.assert_array_equal(tensors[f"{name}.weight"], kernel.T)
    assert tensors["lm_head.weight"].shape == (30, 16)


def test_random_base_depends_on_the_seed_alone():
    one, two, other = random_base(ENCODER), random_base(ENCODER), random_base(ENCODER, seed=1)
    assert one.fingerprint == two.fingerprint != other.fingerprint
    assert random_base(ENCODER, scale=1.0).fingerprint != one.fingerprint
    deeper = random_base(dataclasses.replace(ENCODER, layers=4))
    np.testing.assert_array_equal(deeper.params["embed"]["embedding"], one.params["embed"]["embedding"])


def test_random_logits_are_large_enough_to_show_faults():
    base = random_base(DECODER)
    tokens = jnp.arange(10)[None] % 30

    def logits(params):
        hidden, _ = base.model.apply({"params": params}, tokens, tokens >= 0)
        return base.model.apply({"params": params}, hidden, method="head")

    assert jnp.abs(jax.jit(logits)(base.params)).max() >= 4


def test_fingerprint_ignores_storage():
    tensors = hf_tensors(random_base(ENCODER))
    expected = fingerprint(tensors)
    assert fingerprint(reversed(tensors.items())) == expected
    assert fingerprint({f"bert.{name}": t for name, t in tensors.items()}) == expected
    assert fingerprint({name: t.astype(np.float64) for name, t in tensors.items()}) == expected
    assert fingerprint(tensors | {"embeddings.position_ids": np.arange(20)[None]}) == expected
    half = {name: t.astype(jnp.bfloat16) for name, t in tensors.items()}
    assert fingerprint(half) != expected
    assert fingerprint({name: t.astype(np.float32) for name, t in half.items()}) == fingerprint(half)
    assert fingerprint(iter(hf_tensors(random_base(DECODER)).items())) == random_base(DECODER).fingerprint


@pytest.mark.parametrize("change", ["value", "shape", "name", "fewer"])
def test_fingerprint_notices(change):
    tensors = hf_tensors(random_base(ENCODER))
    name = "encoder.layer.1.output.dense.weight"
    other = dict(tensors)
    if change == "value":
        other[name] = np.nextafter(
            tensors[name], np.float32(9), where=np.eye(16, 24) > 0, out=tensors[name].copy()
        )
    elif change == "shape":
        other[name] = tensors[name].reshape(24, 16)
    elif change == "name":
        other[name], swapped = tensors["encoder.layer.2.output.dense.weight"], tensors[name]
        other["encoder.layer.2.output.dense.weight"] = swapped
    else:
        del other[name]
    assert fingerprint(other) != fingerprint(tensors)


def shard(folder, tensors, parts=3):
    """Rewrite a saved folder as shards with an index."""
    names = sorted(tensors)
    where = {name: f"model-{i % parts:05d}.safetensors" for i, name in enumerate(names)}
    for file in set(where.values()):
        save_file({n: tensors[n] for n in names if where[n] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    (folder / "model.safetensors").unlink(missing_ok=True)
    return where


@pytest.mark.parametrize("config", [ENCODER, DECODER], ids=["encoder", "decoder"])
def test_shards_prefix_and_file_dtype_change_nothing(config, tmp_path):
    base = random_base(config)
    save(base, tmp_path)
    plain = hf_tensors(base)
    prefix = "bert." if config is ENCODER else "model."
    dressed = {
        name if name.startswith((prefix, "lm_head")) else prefix + name: t for name, t in plain.items()
    }
    dressed["bert.embeddings.position_ids"] = np.arange(20)[None]
    dressed["pooler.dense.weight"] = np.ones((2, 2), np.float32)
    shard(tmp_path, {name: t.astype(np.float64) for name, t in dressed.items()})
    again = load(tmp_path)
    assert again.fingerprint == base.fingerprint
    jax.tree.map(np.testing.assert_array_equal, again.params, base.params)


def test_old_norm_names_are_read(tmp_path):
    base = random_base(ENCODER)
    save(base, tmp_path)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t
        for name, t in hf_tensors(base).items()
    }
    save_file(old, tmp_path / "model.safetensors")
    again = load(tmp_path)
    assert again.fingerprint == base.fingerprint
    jax.tree.map(np.testing.assert_array_equal, again.params, base.params)


def test_half_precision_is_chosen_at_loading(tmp_path):
    base = random_base(DECODER)
    save(base, tmp_path)
    half = load(tmp_path, dtype="bfloat16")
    assert half.model.config.dtype == "bfloat16"
    assert {leaf.dtype for leaf in jax.tree.leaves(half.params)} == {jnp.dtype("bfloat16")}
    assert half.fingerprint == base.fingerprint
    stored = {name: t.astype(jnp.bfloat16) for name, t in load_file(tmp_path / "model.safetensors").items()}
    save_file(stored, tmp_path / "model.safetensors")
    again = load(tmp_path)
    assert again.fingerprint == fingerprint(stored) != base.fingerprint
    jax.tree.map(np.testing.assert_array_equal, again.params, jax.tree.map(jnp.float32, half.params))


def test_save_refuses_what_no_family_has(tmp_path):
    base = random_base(DECODER)
    odd = dataclasses.replace(DECODER, out_bias=True, window=4)
    base = dataclasses.replace(base, model=make_model(odd))
    with pytest.raises(UserError, match="no known family has out_bias=True together with the rest"):
        save(base, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_older_rotary_keys_are_read():
    hf = hf_config(OPTIONS["llama3"])
    given = hf.pop("rope_parameters")
    hf |= {"rope_theta": given.pop("rope_theta"), "rope_scaling": given}
    assert configure(hf, "c") == OPTIONS["llama3"]
    hf["rope_scaling"] = {"type": "linear", "factor": 2.0}
    assert configure(hf, "c").rotary == Rotary(5e5, "linear", 2.0)
    hf["rope_scaling"] = None
    assert configure(hf, "c").rotary == Rotary(5e5)


def test_absent_keys_take_the_family_defaults():
    sizes = {"vocab_size": 9, "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 16}
    sizes |= {"intermediate_size": 5}
    llama, mistral, qwen, bert = (
        configure(sizes | {"model_type": name}, "c") for name in ("llama", "mistral", "qwen2", "bert")
    )
    assert (llama.kv_heads, llama.tied, llama.qkv_bias, llama.window, llama.eps) == (
        16,
        False,
        False,
        None,
        1e-6,
    )
    assert (mistral.kv_heads, mistral.window, mistral.qkv_bias) == (8, 4096, False)
    assert (qwen.qkv_bias, qwen.out_bias, qwen.window) == (True, False, None)
    assert (bert.positions, bert.types, bert.eps, bert.activation) == (512, 2, 1e-12, "gelu")
