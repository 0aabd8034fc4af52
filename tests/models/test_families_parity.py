"""Every family against transformers on torch: logits, greedy generation, adapters, and each feature switched off."""

import dataclasses
import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from family_cases import CASES, DECODERS, ENCODERS
from flax.traverse_util import flatten_dict, unflatten_dict

from moejax import adapted
from moejax.adapted import Adapted
from moejax.experts.expert import Expert
from moejax.experts.files import write
from moejax.experts.lora import Lora
from moejax.experts.pool import pool_of
from moejax.models import weights
from moejax.models.configs import family_of
from moejax.models.families import FAMILIES
from moejax.models.generate import bare, generate
from moejax.models.weights import load, make_model, random_base, save
from moejax.places import EXPERTS, evenly
from moejax.types import Batch

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
LENGTHS, NEW = np.array([12, 5, 9])[:, None], 6


def texts(side, pad):
    """Tokens, mask and positions of rows of unequal length, padded on one side."""
    size, rng = int(LENGTHS.max()), np.random.default_rng(0)
    place = np.arange(size)[None]
    mask = place >= size - LENGTHS if side == "left" else place < LENGTHS
    return np.where(mask, rng.integers(5, 50, mask.shape), pad), mask, np.maximum(np.cumsum(mask, 1) - 1, 0)


@functools.cache
def ours(name):
    return random_base(CASES[name].config, seed=1)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folder and model of transformers by name of a case, every tensor of it found in the folder."""

    @functools.cache
    def made(name):
        import torch
        import transformers

        torch.manual_seed(0)
        folder = tmp_path_factory.mktemp("base")
        save(ours(name), folder)
        wrapper = getattr(transformers, FAMILIES[CASES[name].family].wrapper)
        options = {"add_pooling_layer": False} if name in ENCODERS else {}
        model, info = wrapper.from_pretrained(
            folder, output_loading_info=True, attn_implementation="eager", **options
        )
        assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        return folder, model.eval()

    return made


@functools.partial(jax.jit, static_argnums=0)
def compiled(model, params, tokens, mask):
    """Logits; an encoder's are of a head tied to its words."""
    hidden, _ = model.apply({"params": params}, tokens, mask)
    if hasattr(model, "head"):
        return model.apply({"params": params}, hidden, method="head")
    return hidden @ params["embed"]["embedding"].T


def logits_of(model, params, tokens, mask):
    return np.asarray(compiled(model, params, jnp.array(tokens), jnp.array(mask)))


def fitting(config, base):
    """The base's parameters for another config: what it has not is random (a second norm is the first), or tiled."""
    flat = flatten_dict(base.params)
    found = {}
    for path, shape in weights._abstract(config).items():
        leaf = jnp.asarray(weights._draw(path, shape, 1, 2.0, False))
        same = flat.get(
            ("layers", "attn_norm", path[-1]) if path[:2] == ("layers", "mlp_norm") else path, leaf
        )
        same = flat.get(path, same)
        found[path] = jnp.tile(same, (1,) * (same.ndim - 1) + (leaf.shape[-1] // same.shape[-1],))
    return unflatten_dict(found)


def theirs(model, tokens, mask, positions, encoder):
    """Logits; an encoder's are of a head tied to its words."""
    import torch

    given = {"input_ids": tokens, "attention_mask": mask.astype(int)}
    if not encoder:
        given |= {"position_ids": positions}
    with torch.no_grad():
        out = model(**{name: torch.tensor(np.asarray(a)) for name, a in given.items()})
        if encoder:
            return (out.last_hidden_state @ model.get_input_embeddings().weight.T).numpy()
        return out.logits.numpy()


def error(found, expected, mask):
    """The largest difference at real tokens, as a share of the largest value, which is at least 4."""
    largest = np.abs(expected[mask]).max()
    assert largest >= 4
    return np.abs(found - expected)[mask].max() / largest


@pytest.mark.parametrize("name", CASES)
def test_logits_and_counter_tests(name, saved, tmp_path):
    case, base = CASES[name], ours(name)
    assert family_of(case.config) == case.family
    _, model = saved(name)
    pad = getattr(case.config, "offset", 1) - 1
    for side in ("left", "right"):
        tokens, mask, positions = texts(side, max(pad, 0))
        if case.family == "bert":
            import torch

            places = torch.tensor(positions)
            model_of = functools.partial(model, position_ids=places)
            model_of.get_input_embeddings = model.get_input_embeddings
            expected = theirs(model_of, tokens, mask, positions, True)
        else:
            expected = theirs(model, tokens, mask, positions, name in ENCODERS)
        assert error(logits_of(base.model, base.params, tokens, mask), expected, mask) <= 1e-4
    for feature, changed in case.off.items():
        other = dataclasses.replace(case.config, **changed)
        missed = error(logits_of(make_model(other), fitting(other, base), tokens, mask), expected, mask)
        assert missed >= 1e-3, (feature, missed)
    model.save_pretrained(tmp_path)
    again = load(tmp_path)
    assert again.model.config.block == base.model.config.block and again.fingerprint == base.fingerprint


@pytest.mark.parametrize("name", DECODERS)
def test_greedy_generation(name, saved):
    import torch

    base, (_, model) = ours(name), saved(name)
    tokens, mask, _ = texts("left", 0)
    ids, seen = torch.tensor(tokens), torch.tensor(mask.astype(int))
    made = model.generate(
        input_ids=ids,
        attention_mask=seen,
        max_new_tokens=NEW,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
    )[:, tokens.shape[1] :]
    start, step = bare(base.model, NEW)
    batch = Batch(jnp.array(tokens), jnp.array(mask), jnp.array(mask))
    found = jax.jit(lambda params, batch: generate(start, step, params, batch, max_new=NEW))(
        base.params, batch
    )
    assert found.tokens.tolist() == made.tolist()


@pytest.mark.parametrize("name", ["qwen3", "phi", "phi3", "gemma2", "gemma3", "gpt2", "roberta"])
def test_an_adapter_on_every_linear(name, saved, tmp_path):
    """Our random LoRA, written as a folder, loaded by peft: the same logits, far from the base's."""
    from peft import PeftModel

    base, (folder, bare_model) = ours(name), saved(name)
    rng, loras = np.random.default_rng(3), {}
    for path, layer in base.sites.values():
        d, f = base.shapes[path]
        a, b = rng.normal(size=(2, d)) / d**0.5, rng.normal(size=(2, f)) * 0.3
        loras[path, layer] = Lora(a.astype(np.float32), b.astype(np.float32), 3.0)
    expert = Expert("mine", {}, loras)
    write(tmp_path / "mine", expert, base.sites)
    pool = pool_of([expert], base.sites, base.shapes, base.layers)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fan_in_fan_out", UserWarning)  # peft sets it for Conv1D by itself
        options = {"add_pooling_layer": False} if name in ENCODERS else {}
        fresh = type(bare_model).from_pretrained(folder, attn_implementation="eager", **options)
        model = PeftModel.from_pretrained(fresh, tmp_path / "mine").eval()
    tokens, mask, positions = texts("left", 1 if name == "roberta" else 0)
    expected = theirs(model, tokens, mask, positions, name in ENCODERS)
    plain = theirs(bare_model, tokens, mask, positions, name in ENCODERS)
    assert np.abs(expected - plain)[mask].max() >= 0.1
    arrays = {"params": base.params, "bank": pool.bank, "router": {"model": {}, "places": {}, "knobs": {}}}
    batch = Batch(jnp.array(tokens), jnp.array(mask), jnp.array(mask))
    routed = Adapted(base.model, EXPERTS, evenly)

    @jax.jit
    def logits(arrays, batch):
        hidden = adapted.run(routed, arrays, batch).hidden
        if name in ENCODERS:
            return hidden @ arrays["params"]["embed"]["embedding"].T
        return adapted.head(base.model, arrays, hidden)

    assert error(np.asarray(logits(arrays, batch)), expected, mask) <= 1e-4


@pytest.mark.parametrize("name", ["gemma2", "gemma3", "phi", "gpt2"])
def test_what_transformers_wrote_in_half_precision(name, saved, tmp_path):
    """bf16 files, in shards: their values, exactly; and arithmetic in bf16 stays near."""
    import copy

    import torch

    _, model = saved(name)
    half = copy.deepcopy(model).to(torch.bfloat16)
    half.save_pretrained(tmp_path / "half", max_shard_size="10KB")
    half.to(torch.float32).save_pretrained(tmp_path / "wide")
    assert len(list((tmp_path / "half").glob("*.safetensors"))) > 3
    one, other, rounded = (
        load(tmp_path / "half"),
        load(tmp_path / "wide"),
        load(tmp_path / "half", "bfloat16"),
    )
    assert one.fingerprint == other.fingerprint == rounded.fingerprint
    jax.tree.map(np.testing.assert_array_equal, one.params, other.params)
    tokens, mask, _ = texts("right", 0)
    exact, near = (logits_of(b.model, b.params, tokens, mask) for b in (one, rounded))
    away = np.sqrt(np.mean((near.astype(np.float32) - exact)[mask] ** 2) / np.mean(exact[mask] ** 2))
    assert 0 < away < 0.1


def test_every_family_is_compared():
    """XLM-R is RoBERTa under another name; T5 is compared in test_seq2seq_parity.py."""
    assert {case.family for case in CASES.values()} == FAMILIES.keys() - {"xlm-roberta", "t5"}
