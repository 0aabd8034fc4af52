"""Whole models as experts against transformers on torch: ours load there, and what torch tuned is read here."""

import jax
import numpy as np
import pytest

from moejax.contract import Fitted
from moejax.experts.expert import Expert
from moejax.experts.files import read, write
from moejax.experts.pool import pool_of
from moejax.methods import task_arithmetic
from moejax.models.decoder import DecoderConfig
from moejax.models.encoder import EncoderConfig
from moejax.models.weights import random_base, save
from moejax.train.fulls import differences

pytestmark = pytest.mark.parity

BASES = {
    "BertModel": EncoderConfig(vocab=50, width=32, layers=2, heads=4, hidden=64, positions=40),
    "LlamaForCausalLM": DecoderConfig(vocab=50, width=32, layers=2, heads=4, kv_heads=2, hidden=48),
}


def theirs(folder, kind):
    """The model of transformers, every tensor of it found in the folder."""
    import transformers

    options = {"add_pooling_layer": False} if kind == "BertModel" else {}
    model, info = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True, **options)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


def last_states(model, tokens):
    import torch

    found = model(input_ids=torch.tensor(tokens), output_hidden_states=True)
    return found.hidden_states[-1].detach().numpy()


def merged_states(base, expert, tokens):
    """Ours: base plus the whole difference."""
    pool = pool_of([expert], base.sites, base.shapes, base.layers)
    method, config = task_arithmetic, task_arithmetic.Config(kind="delta")
    router = Fitted({"places": {}, "knobs": {"lambda": np.float32(1.0)}}, pool.names)
    params = method.arrays(config, base, pool, router)["params"]
    mask = jax.numpy.ones(tokens.shape, bool)
    return np.asarray(jax.jit(base.model.apply)({"params": params}, jax.numpy.asarray(tokens), mask)[0])


@pytest.mark.parametrize("kind", BASES)
def test_transformers_loads_an_expert_of_ours(kind, tmp_path):
    base, other = random_base(BASES[kind]), random_base(BASES[kind], seed=1)
    deltas, rest = differences(base.params, other.params, 0)
    expert = Expert("mine", {}, {}, deltas=deltas, rest=rest)
    write(tmp_path / "mine", expert, base.sites, fingerprint=base.fingerprint, homes=base.homes)
    tokens = np.random.default_rng(0).integers(1, 50, (3, 9)).astype(np.int32)
    expected = last_states(theirs(tmp_path / "mine", kind), tokens)
    np.testing.assert_allclose(
        merged_states(base, expert, tokens), expected, rtol=0, atol=1e-4 * np.abs(expected).max()
    )


@pytest.mark.parametrize("kind", BASES)
def test_what_torch_tuned_and_transformers_saved_is_read(kind, tmp_path):
    import torch

    base = random_base(BASES[kind])
    save(base, tmp_path / "base")
    model = theirs(tmp_path / "base", kind)
    tokens = np.random.default_rng(1).integers(1, 50, (3, 9)).astype(np.int32)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    states = model(input_ids=torch.tensor(tokens), output_hidden_states=True).hidden_states[-1]
    states.square().mean().backward()
    optimiser.step()
    model.save_pretrained(tmp_path / "mine", max_shard_size="20KB")
    assert len(list((tmp_path / "mine").glob("*.safetensors"))) > 1
    expert, _ = read(tmp_path / "mine", base.sites, base.shapes, base.fingerprint, homes=base.homes)
    expected = last_states(model, tokens)
    bound = 1e-4 * np.abs(expected).max()
    np.testing.assert_allclose(merged_states(base, expert, tokens), expected, rtol=0, atol=bound)
    bare = last_states(theirs(tmp_path / "base", kind), tokens)
    assert np.abs(bare - expected).max() > 10 * bound
    assert expert.info["kind"] == "delta"
