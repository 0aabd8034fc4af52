"""Folders of strangers: each fault is one UserError that names what is wrong."""

import dataclasses
import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from moejax.models.decoder import DecoderConfig
from moejax.models.weights import load, random_base, save
from moejax.types import UserError

DECODER = DecoderConfig(vocab=30, width=16, layers=2, heads=4, kv_heads=2, hidden=24)
REMOVED = object()


@pytest.fixture
def folder(tmp_path):
    save(random_base(DECODER), tmp_path)
    return tmp_path


def edit(folder, **changes):
    path = folder / "config.json"
    hf = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in hf.items() if value is not REMOVED}))


def rewrite(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


CONFIG_FAULTS = [
    ({"auto_map": {"AutoModel": "code.Model"}}, "auto_map .*code"),
    ({"quantization_config": {"bits": 4}}, "quantization_config .*quantised"),
    ({"model_type": "mamba"}, "model_type is 'mamba'; expected one of bert, roberta, .*, gpt2"),
    ({"model_type": REMOVED}, "model_type is None"),
    ({"model_type": ["llama"]}, "model_type is"),
    ({"hidden_size": REMOVED}, "hidden_size is missing"),
    ({"hidden_size": "16"}, "hidden_size is '16'; expected a whole number from 1 to 2147483647"),
    ({"num_hidden_layers": -2}, "num_hidden_layers is -2"),
    ({"num_hidden_layers": True}, "num_hidden_layers is True"),
    ({"vocab_size": None}, "vocab_size is None"),
    ({"rms_norm_eps": "tiny"}, "rms_norm_eps is 'tiny'; expected a number above 0"),
    ({"tie_word_embeddings": 1}, "tie_word_embeddings is 1; expected true or false"),
    ({"hidden_act": "mish"}, "hidden_act is 'mish'"),
    ({"num_attention_heads": 5, "num_key_value_heads": 5}, "does not divide into 5 heads"),
    ({"num_key_value_heads": 3}, "4 heads do not divide into 3 key-value heads"),
    ({"head_dim": 3}, "even head size, not 3"),
    ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "rotary type 'yarn'"),
    ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "rotary"),
    (
        {"rope_parameters": {"rope_type": "linear"}},
        "rotary type 'linear' needs a number above 0 under factor",
    ),
    (
        {"rope_parameters": {"rope_type": "llama3", "factor": 8.0}},
        "needs a number above 0 under low_freq_factor",
    ),
    ({"rope_parameters": "default"}, "rope_parameters is 'default'; expected an object"),
    ({"rope_parameters": {"rope_type": "default", "rope_theta": "big"}}, "above 0 under rope_theta"),
    ({"vocab_size": 10**15}, "vocab_size is 1000000000000000"),
    ({"vocab_size": 2**31 - 1}, "embed_tokens.weight is"),
    ({"num_hidden_layers": 10**9}, "hold no model.layers.2"),
    (
        {"rope_parameters": {"rope_type": "longrope"}},
        "rotary type 'longrope' is not known here; expected one of",
    ),
    ({"rope_parameters": {"rope_type": ["linear"]}}, "rotary type .'linear'."),
    ({"hidden_act": ["silu"]}, "hidden_act is .'silu'."),
    ({"rms_norm_eps": True}, "rms_norm_eps is True"),
    ({"rms_norm_eps": 10**400}, "rms_norm_eps is 1000"),
    ({"head_dim": 2**30}, "4 heads of 1073741824 .* are too many"),
    ({"model_type": "gemma2", "use_bidirectional_attention": True}, "use_bidirectional_attention is True"),
    ({"model_type": "gemma2", "layer_types": ["full_attention"]}, "layer_types must say .* each of 2 layers"),
    ({"model_type": "gemma2", "num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000; expected 10000"),
    ({"model_type": "gemma3_text", "sliding_window_pattern": 0}, "sliding_window_pattern is 0"),
    (
        {"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": "few"},
        "max_window_layers is 'few'",
    ),
    ({"model_type": "phi", "qk_layernorm": True}, "qk_layernorm is True"),
    ({"model_type": "phi3", "partial_rotary_factor": 2.0}, "partial_rotary_factor 2.0"),
    ({"model_type": "roberta", "pad_token_id": None}, "pad_token_id is None; expected a whole number below"),
    ({"model_type": "bert", "position_embedding_type": "relative_key"}, "position_embedding_type"),
    ({"vocab_size": 31}, r"embed_tokens.weight is \[30, 16\], but config.json makes it \[31, 16\]"),
    ({"num_hidden_layers": 3}, "hold no model.layers.2"),
    ({"attention_bias": True}, "hold no model.layers.0.self_attn.*bias"),
]


@pytest.mark.parametrize(("changes", "message"), CONFIG_FAULTS, ids=[m for _, m in CONFIG_FAULTS])
def test_config_faults(folder, changes, message):
    edit(folder, **changes)
    with pytest.raises(UserError, match=message):
        load(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "cannot be read as JSON"), ("[]", "expected a JSON object"), (None, "missing")],
)
def test_unreadable_config(folder, text, message):
    (folder / "config.json").unlink()
    if text is not None:
        (folder / "config.json").write_text(text)
    with pytest.raises(UserError, match=f"config.json.*{message}"):
        load(folder)


def test_no_folder(tmp_path):
    with pytest.raises(UserError, match="there is no folder .*/absent"):
        load(tmp_path / "absent")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file"):
        load(tmp_path / "file")


@pytest.mark.parametrize("name", ["no-such-org/no-such-model", "no-such-model"])
def test_hub_name_that_cannot_be_reached(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"{name} is neither a folder here nor a model that the hub gives"):
        load(name)


def test_no_weights(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="holds no weights"):
        load(folder)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(UserError, match=r"only pickled weights \(pytorch_model.bin\)"):
        load(folder)


@pytest.mark.parametrize("keep", [0, 20, -8])
def test_truncated_file(folder, keep):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:keep])
    with pytest.raises(UserError, match="model.safetensors is truncated"):
        load(folder)


LINKED = ("config.json", "model.safetensors")


@pytest.mark.parametrize("name", LINKED)
def test_a_link_may_not_leave_the_folder(folder, name, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (folder / name).rename(elsewhere / name)
    (folder / name).symlink_to(elsewhere / name)
    with pytest.raises(UserError, match=f"{name} is a symbolic link that leaves the folder"):
        load(folder)


def test_a_link_within_the_folder_and_one_to_the_folder(folder, tmp_path_factory):
    expected = load(folder).fingerprint
    (folder / "files").mkdir()
    for name in LINKED:
        (folder / name).rename(folder / "files" / name)
        (folder / name).symlink_to(Path("files") / name)
    alias = tmp_path_factory.mktemp("alias") / "base"
    alias.symlink_to(folder)
    assert load(folder).fingerprint == load(alias).fingerprint == expected


def cached(root, folder, repository, blobs):
    """The folder as the hub's cache keeps it: a snapshot of links into the blobs of a repository."""
    snapshot, store = root / repository / "snapshots" / "abc", root / blobs / "blobs"
    snapshot.mkdir(parents=True)
    store.mkdir(parents=True)
    for name in LINKED:
        (store / name).write_bytes((folder / name).read_bytes())
        (snapshot / name).symlink_to(Path("../../..") / blobs / "blobs" / name)
    return snapshot


def test_the_cache_of_the_hub(folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    same = cached(root, folder, "models--org--name", "models--org--name")
    assert load(same).fingerprint == load(folder).fingerprint
    with pytest.raises(UserError, match="config.json is a symbolic link that leaves the folder"):
        load(cached(root, folder, "models--org--more", "models--org--other"))


def index(folder, weight_map):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_shard_faults(folder):
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors, folder / "model-1.safetensors")
    index(folder, dict.fromkeys(tensors, "model-1.safetensors") | {"lm_head.weight": "model-2.safetensors"})
    with pytest.raises(
        UserError, match="model-2.safetensors is listed in model.safetensors.index.json but missing"
    ):
        load(folder)
    save_file({"lm_head.weight": tensors["lm_head.weight"]}, folder / "model-2.safetensors")
    with pytest.raises(UserError, match="lm_head.weight was met before"):
        load(folder)


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/passwd", "model.bin", "a/../b.safetensors"])
def test_index_may_not_leave_the_folder(folder, name):
    index(folder, {"lm_head.weight": name})
    with pytest.raises(UserError, match="is no safetensors file of this folder"):
        load(folder)


@pytest.mark.parametrize("weight_map", [{}, [], {"lm_head.weight": 3}, None])
def test_senseless_index(folder, weight_map):
    index(folder, weight_map)
    with pytest.raises(UserError, match="weight_map must map"):
        load(folder)


TENSOR_FAULTS = {
    "up_proj.weight holds a NaN": lambda t: t["model.layers.1.mlp.up_proj.weight"].fill(np.nan),
    "norm.weight holds a NaN or an infinity": lambda t: t["model.norm.weight"].fill(np.inf),
    "up_proj.weight holds a NaN or an infinity": lambda t: t.update(  # of float32, of which the base is made
        {"model.layers.0.mlp.up_proj.weight": np.full((24, 16), 1e300)}
    ),
    "q_proj.weight is of type U8; expected F64": lambda t: t.update(  # as bitsandbytes keeps four bits
        {"model.layers.0.self_attn.q_proj.weight": np.ones((16, 16), np.uint8)}
    ),
    "norm.weight is of type I32": lambda t: t.update({"model.norm.weight": np.ones(16, np.int32)}),
    "hold no lm_head.weight": lambda t: t.pop("lm_head.weight"),
    "norm.weight was met before as model.norm.weight": lambda t: t.update(
        {"norm.weight": np.ones(16, np.float32)}
    ),
    r"gate_proj.weight is \[16, 24\], but config.json makes it \[24, 16\]": lambda t: t.update(
        {"model.layers.0.mlp.gate_proj.weight": np.ones((16, 24), np.float32)}
    ),
}


@pytest.mark.parametrize("message", TENSOR_FAULTS)
def test_tensor_faults(folder, message):
    rewrite(folder, TENSOR_FAULTS[message])
    with pytest.raises(UserError, match=message):
        load(folder)


def test_tokenizer_is_read_late_and_its_absence_is_said(folder):
    base = load(folder)
    with pytest.raises(UserError, match="no tokenizer can be read"):
        _ = base.tokenizer


def words(folder, last=1):
    """A tokenizer of two words, the second of that number."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({"[UNK]": 0, "hello": last}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]").save_pretrained(folder)


def test_a_vocabulary_above_the_embedding(folder):
    words(folder, last=29)  # the last of 30 rows
    assert load(folder).tokenizer("hello")["input_ids"] == [29]
    words(folder, last=30)
    with pytest.raises(UserError, match="the tokenizer has 31 tokens, the model rows for 30"):
        _ = load(folder).tokenizer


def test_a_tokenizer_that_is_a_link(folder, tmp_path_factory):
    words(folder)
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "tokenizer.json"
    (folder / "tokenizer.json").rename(elsewhere)
    (folder / "tokenizer.json").symlink_to(elsewhere)
    with pytest.raises(UserError, match="tokenizer.json is a symbolic link that leaves the folder"):
        _ = load(folder).tokenizer


def test_code_beside_a_tokenizer_is_never_run(folder):
    words(folder)
    path = folder / "tokenizer_config.json"
    mapped = {"auto_map": {"AutoTokenizer": [None, "code.Mine"]}, "tokenizer_class": "Mine"}
    path.write_text(json.dumps(json.loads(path.read_text()) | mapped))
    (folder / "code.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\nclass Mine: pass\n")
    with suppress(UserError):
        _ = load(folder).tokenizer
    assert not (folder / "ran").exists()


def test_tokenizer_is_read_once(folder):
    words(folder)
    base = load(folder)
    assert base.tokenizer("hello you hello")["input_ids"] == [1, 0, 1]
    assert base.tokenizer is base.tokenizer
    assert dataclasses.replace(base, folder=None).tokenizer("hello")["input_ids"] == [1]
