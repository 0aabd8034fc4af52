"""Families without torch: names of sites, joins, whole fine-tunes, adapters in a parallel block, older configs."""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from family_cases import BERT, CASES, GEMMA2, GEMMA3, GPT2, LLAMA, PHI, PHI3, QWEN3, ROBERTA

from moejax import adapted
from moejax.adapted import Adapted
from moejax.experts.files import read
from moejax.experts.pool import pool_of
from moejax.models.configs import configure, family_of, hf_config
from moejax.models.families import FAMILIES
from moejax.models.rotary import Rotary
from moejax.models.weights import load, random_base, save
from moejax.places import EXPERTS, evenly
from moejax.types import Batch, UserError

SPLIT = "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj mlp.gate_proj mlp.up_proj mlp.down_proj"
LINEARS = {
    "qwen3": SPLIT,
    "gemma3": SPLIT,
    "phi": "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.dense mlp.fc1 mlp.fc2",
    "phi3": "self_attn.qkv_proj self_attn.o_proj mlp.gate_up_proj mlp.down_proj",
    "gpt2": "attn.c_attn attn.c_proj mlp.c_fc mlp.c_proj",
}


@pytest.mark.parametrize("name", LINEARS)
def test_a_site_is_one_linear_under_its_own_name(name):
    base = random_base(CASES[name].config)
    stem = "transformer.h" if name == "gpt2" else "model.layers"
    layers = range(base.layers)
    assert base.sites.keys() == {f"{stem}.{i}.{module}" for i in layers for module in LINEARS[name].split()}
    if name == "phi3":
        assert base.sites["model.layers.1.self_attn.qkv_proj"] == ("layers/attn/qkv", 1)
        assert base.shapes["layers/attn/qkv"] == (32, 64) and base.shapes["layers/mlp/gate_up"] == (32, 96)


def joins(config):
    base, found = random_base(config), set()

    def look(call, args, kwargs, context):
        found.add("/".join(context.module.path))
        return call(*args, **kwargs)

    tokens = jnp.zeros((1, 3), jnp.int32)
    with nn.intercept_methods(look):
        jax.eval_shape(base.model.apply, {"params": base.params}, tokens, tokens == 0)
    return {path for path in found if path.endswith("_join")}


def test_a_parallel_block_has_one_join():
    assert joins(PHI) == {"layers/mlp_join"}
    assert joins(GEMMA2) == joins(LLAMA) == {"layers/attn_join", "layers/mlp_join"}


def test_homes_of_adapterhub_are_given_where_it_knows_the_family():
    known = {
        config: random_base(config).homes.modules
        for config in (LLAMA, GPT2, BERT, ROBERTA, PHI, GEMMA3, QWEN3)
    }
    assert known[LLAMA]["layers.1.output_adapters"] == ("layers/mlp", 1)
    assert known[GPT2]["h.1.attention_adapters"] == ("layers/attn", 1)
    assert known[BERT] == known[ROBERTA] and known[BERT]["encoder.layer.0.output"] == ("layers/mlp", 0)
    assert not known[PHI] and not known[GEMMA3] and not known[QWEN3]


def batch_of(rows=2, t=7):
    tokens = jax.random.randint(jax.random.key(0), (rows, t), 0, 50)
    mask = jnp.arange(t)[None] >= jnp.arange(rows)[:, None]
    return Batch(tokens, mask, mask)


def logits(base, batch, pool=None, places=EXPERTS):
    @jax.jit
    def run(arrays, batch):
        routed = Adapted(base.model, places if pool else (), evenly if pool else None)
        return adapted.head(base.model, arrays, adapted.run(routed, arrays, batch).hidden)

    empty = {"model": {}, "places": {}, "knobs": {}}
    bank = (pool or pool_of([], base.sites, base.shapes, base.layers, capacity=1)).bank
    return run({"params": base.params, "bank": bank, "router": empty}, batch)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen3", "phi", "gemma3", "gpt2"])
def test_a_whole_fine_tune_as_an_expert_is_that_model(name, tmp_path):
    """Every kind of parameter moves: norms of heads, gains that are 1 + w, linears that lie [in, out]."""
    base, batch = random_base(CASES[name].config), batch_of()
    rng = np.random.default_rng(1)

    def moved(path, leaf):
        inside = any(getattr(key, "key", None) == "layers" for key in path)
        return leaf + 0.1 * rng.normal(size=leaf.shape).astype(np.float32) if inside else leaf

    tuned = dataclasses.replace(base, params=jax.tree_util.tree_map_with_path(moved, base.params))
    save(tuned, tmp_path / "tuned")
    expert, _ = read(tmp_path / "tuned", base.sites, base.shapes, base.fingerprint, homes=base.homes)
    pool = pool_of([expert], base.sites, base.shapes, base.layers)
    expected, plain = logits(tuned, batch), logits(base, batch)
    assert jnp.abs(expected - plain).max() > 0.1
    np.testing.assert_allclose(
        logits(base, batch, pool)[batch.mask],
        expected[batch.mask],
        rtol=0,
        atol=2e-5 * jnp.abs(expected).max(),
    )


def test_bottleneck_adapters_stand_at_the_one_join_of_a_parallel_block():
    base, batch = random_base(PHI), batch_of()
    pool = tiny.bottlenecks(base, "ann")
    moved = logits(base, batch, pool) - logits(base, batch)
    assert jnp.abs(moved).max() > 0.1


def test_rows_alone_and_among_others_by_every_kind_of_position():
    for config in (GEMMA3, GPT2, PHI3):
        base, batch = random_base(config), batch_of(3)
        alone = Batch(*(leaf[2:, 2:] for leaf in batch[:3]))
        np.testing.assert_allclose(logits(base, batch)[2, 2:], logits(base, alone)[0], rtol=0, atol=1e-4)


def test_learned_positions_end():
    base = random_base(dataclasses.replace(GPT2, learned=6))
    with pytest.raises(UserError, match="7 tokens, prompt and answer together, are too many for 6 positions"):
        logits(base, batch_of())


def test_older_configs_of_gemma_and_phi():
    hf = hf_config(GEMMA3)
    hf.pop("rope_parameters")
    hf |= {"rope_theta": 1e3, "rope_local_base_freq": 20.0, "rope_scaling": None}
    assert configure(hf, "c") == GEMMA3
    hf["rope_scaling"] = {"rope_type": "linear", "factor": 8.0}
    found = configure(hf, "c")
    assert (found.rotary, found.local_rotary) == (Rotary(1e3, "linear", 8.0), Rotary(20.0))
    hf = hf_config(GEMMA3) | {"num_hidden_layers": 12}
    hf.pop("layer_types")
    assert configure(hf, "c").local == ((True,) * 5 + (False,)) * 2
    assert configure(hf | {"sliding_window_pattern": 3}, "c").local == (True, True, False) * 4
    only_local = configure(hf | {"num_hidden_layers": 2}, "c")
    assert (only_local.local, only_local.rotary, only_local.local_rotary) == (None, Rotary(20.0), None)
    hf = hf_config(GEMMA2) | {"num_hidden_layers": 4}
    hf.pop("layer_types")
    assert configure(hf, "c").local == (True, False, True, False)
    hf = hf_config(PHI)
    hf.pop("rope_parameters")
    assert configure(hf, "c").rotary == Rotary(part=0.5)
    assert configure(hf | {"partial_rotary_factor": 0.25}, "c").rotary == Rotary(part=0.25)


def test_xlm_roberta_is_read_as_roberta(tmp_path):
    base = random_base(ROBERTA)
    save(base, tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "xlm-roberta"}))
    again = load(tmp_path)
    assert again.model == base.model and again.fingerprint == base.fingerprint


@pytest.mark.parametrize("name", CASES)
def test_every_case_is_of_its_family(name, tmp_path):
    config = CASES[name].config
    assert family_of(config) == CASES[name].family
    assert hf_config(config)["architectures"] == [FAMILIES[CASES[name].family].wrapper]


def test_a_sharding_is_asked_for_each_leaf(tmp_path):
    base, asked = random_base(PHI3), {}
    save(base, tmp_path)
    mesh = jax.make_mesh((4,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))

    def sharding(path, shape):
        asked[path] = shape
        cut = "model" if path.startswith("layers") and path.endswith("kernel") else None
        return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*[None] * (len(shape) - 1), cut))

    found = load(tmp_path, sharding=sharding)
    assert asked["layers/attn/qkv/kernel"] == (2, 32, 64)
    assert len(found.params["layers"]["attn"]["qkv"]["kernel"].sharding.device_set) == 4
    assert found.params["layers"]["attn"]["qkv"]["kernel"].addressable_shards[0].data.shape == (2, 32, 16)
    jax.tree.map(np.testing.assert_array_equal, found.params, base.params)
