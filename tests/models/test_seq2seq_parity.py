"""T5 against transformers on torch, and LoRAs on it against PEFT: tiny random models of each form."""

import dataclasses
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moejax.adapted import Adapted, head, run, start, step
from moejax.experts.pool import pool_of, read_pool
from moejax.models.distance import bucketed
from moejax.models.generate import generate
from moejax.models.seq2seq import Seq2SeqConfig
from moejax.models.weights import load, make_model, random_base, save
from moejax.places import EXPERTS, own_expert
from moejax.types import Batch

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

V11 = Seq2SeqConfig(
    vocab=50, width=32, encoder_layers=2, decoder_layers=3, heads=4, head_dim=6, hidden=40, buckets=8, most=12
)
FORMS = {
    "v1.1": V11,
    "tied": dataclasses.replace(V11, tied=True, shrunk=True, heads=2, head_dim=16, encoder_layers=3, decoder_layers=2),
    "plain": dataclasses.replace(
        V11, tied=True, shrunk=True, gated=False, activation="relu", begin=3, decoder_layers=2, buckets=32, most=128
    ),
    "own head, shrunk": dataclasses.replace(V11, shrunk=True, activation="silu", eps=1e-3),
    "tied, not shrunk": dataclasses.replace(V11, tied=True, encoder_layers=1, decoder_layers=1),
}  # fmt: skip
TEXTS, ANSWERS = (23, 5, 14), (16, 9, 3)


@cache
def made(name, tmp):
    """Our base, its folder, and the model of transformers, every tensor of it found there."""
    import torch
    from transformers import T5ForConditionalGeneration

    torch.manual_seed(0)
    base = random_base(FORMS[name])
    if FORMS[name].shrunk and not FORMS[name].tied:  # so that logits are large all the same
        params = base.params | {"lm_head": jax.tree.map(lambda leaf: leaf * 6, base.params["lm_head"])}
        base = dataclasses.replace(base, params=params)
    save(base, tmp / name)
    model, info = T5ForConditionalGeneration.from_pretrained(tmp / name, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return base, tmp / name, model.eval()


@pytest.fixture(scope="module")
def tmp(tmp_path_factory):
    return tmp_path_factory.mktemp("t5")


def ragged(lengths, side, seed):
    place, lengths = np.arange(max(lengths))[None], np.array(lengths)[:, None]
    mask = place >= max(lengths) - lengths if side == "left" else place < lengths
    return np.where(mask, np.random.default_rng(seed).integers(1, 50, mask.shape), 0), mask


def batch_of(side):
    (tokens, mask), (targets, answer) = ragged(TEXTS, side, 0), ragged(ANSWERS, "right", 1)
    return Batch(tokens, mask, mask, targets=targets, answer=answer)


def theirs(model, batch, **options):
    import torch

    labels = torch.tensor(np.where(batch.answer, batch.targets, -100))
    with torch.no_grad():
        given = {
            "input_ids": torch.tensor(batch.tokens),
            "attention_mask": torch.tensor(batch.mask.astype(int)),
        }
        return model(**given, labels=labels, **options).logits.numpy()


def arrays_of(base, pool=None):
    pool = pool or pool_of([], base.sites, base.shapes, base.layers)
    return {"params": base.params, "bank": jax.tree.map(jnp.asarray, pool.bank), "router": {}, "labels": None}


@partial(jax.jit, static_argnames="adapted")
def logits(arrays, batch, adapted):
    return head(adapted.model, arrays, run(adapted, arrays, batch).hidden)


def ours(base, batch):
    return np.asarray(logits(arrays_of(base), jax.tree.map(jnp.asarray, batch), Adapted(base.model)))


def off(found, expected, real):
    """The largest difference at real places, over the largest logit."""
    largest = np.abs(expected[real]).max()
    assert largest >= 4
    return np.abs(found[real] - expected[real]).max() / largest


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", FORMS)
def test_logits(name, side, tmp):
    base, _, model = made(name, tmp)
    batch = batch_of(side)
    assert off(ours(base, batch), theirs(model, batch), batch.answer) <= 1e-4


def switched(base, **fields):
    return dataclasses.replace(base, model=make_model(dataclasses.replace(base.model.config, **fields)))


def without(base, *names, scale=0.0):
    return dataclasses.replace(
        base, params=base.params | {n: jax.tree.map(lambda leaf: leaf * scale, base.params[n]) for n in names}
    )


def scaled(base):
    """As if logits of attention were divided by the root of the head size."""
    half = base.model.config.head_dim**-0.5

    def shrink(path, leaf):
        return leaf * half if path[-2].key == "q" else leaf

    return dataclasses.replace(base, params=jax.tree_util.tree_map_with_path(shrink, base.params))


FEATURES = {
    "distances of the encoder": ("v1.1", lambda b: without(b, "encoder_distance")),
    "distances of the decoder": ("v1.1", lambda b: without(b, "distance")),
    "number of buckets": ("v1.1", lambda b: switched(b, most=20)),
    "gate": ("v1.1", lambda b: switched(b, gated=False)),
    "form of gelu": ("v1.1", lambda b: switched(b, activation="gelu")),
    "unscaled attention": ("v1.1", scaled),
    "shrunk states": ("tied", lambda b: switched(b, shrunk=False)),
    "states as they are": ("tied, not shrunk", lambda b: switched(b, shrunk=True)),
    "start token": ("plain", lambda b: switched(b, begin=0)),
    "eps": ("own head, shrunk", lambda b: switched(b, eps=1e-6)),
}


@pytest.mark.parametrize("feature", FEATURES)
def test_without_a_feature_logits_are_far_off(feature, tmp):
    name, change = FEATURES[feature]
    base, _, model = made(name, tmp)
    batch = batch_of("left")
    assert off(ours(change(base), batch), theirs(model, batch), batch.answer) >= 1e-3


@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize(("buckets", "most"), [(32, 128), (8, 12), (16, 64), (32, 256), (4, 20), (64, 300)])
def test_buckets(buckets, most, both):
    import torch
    from transformers.models.t5.modeling_t5 import T5Attention

    places = np.arange(700)
    found = jax.jit(bucketed, static_argnums=(2, 3, 4))(jnp.array([350]), places, buckets, most, both)
    relative = torch.arange(700)[None] - 350
    expected = T5Attention._relative_position_bucket(relative, both, buckets, most)
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("name", FORMS)
def test_greedy_generation_and_the_cache(name, tmp):
    import torch

    base, _, model = made(name, tmp)
    batch = batch_of("left")
    adapted, arrays = Adapted(base.model), arrays_of(base)
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    options["use_cache"] = False  # transformers 5.24 makes as many caches as the encoder has layers
    seen = torch.tensor(batch.mask.astype(int))
    expected = model.generate(input_ids=torch.tensor(batch.tokens), attention_mask=seen, **options)
    assert expected[:, 0].tolist() == [base.model.config.begin] * 3

    @jax.jit
    def write(arrays, batch):
        return generate(
            lambda a, b: start(adapted, a, b, 12),
            lambda a, t, s: step(adapted, a, t, s),
            arrays,
            batch,
            max_new=12,
        ).tokens

    tokens = np.asarray(write(arrays, jax.tree.map(jnp.asarray, batch)))
    assert tokens.tolist() == expected[:, 1:].tolist()
    assert len({tuple(row) for row in tokens.tolist()}) == 3  # the texts are read

    @jax.jit
    def cached(arrays, batch, tokens):
        first, state = start(adapted, arrays, batch, 12)
        found = [first]
        for i in range(11):
            one, state = step(adapted, arrays, tokens[:, i], state)
            found.append(one)
        return jnp.stack(found, axis=1)

    whole = batch._replace(targets=tokens, answer=np.ones_like(tokens, bool))
    assert off(np.asarray(cached(arrays, batch, tokens)), ours(base, whole), whole.answer) <= 1e-5


def test_folders_that_transformers_writes(tmp, tmp_path):
    """Whole and in shards, with a head of their own and without: the same base again."""
    for name in FORMS:
        base, _, model = made(name, tmp)
        model.save_pretrained(tmp_path / name, max_shard_size="30KB")
        again = load(tmp_path / name)
        assert len(list((tmp_path / name).glob("*.safetensors"))) > 1
        assert again.model == base.model, name
        jax.tree.map(np.testing.assert_array_equal, again.params, base.params)


PEFT = {
    "some": {"r": 3, "lora_alpha": 5, "target_modules": ["q", "v", "wi_0"]},
    "cross": {"r": 2, "lora_alpha": 3, "target_modules": r".*EncDecAttention\.(q|k|v|o)|encoder\.block\.1\..*\.wo"},
    "ranks": {
        "r": 4, "lora_alpha": 4, "target_modules": ["k", "o", "wi_1"], "use_rslora": True,
        "rank_pattern": {r"decoder.*SelfAttention\.k": 1}, "alpha_pattern": {"wi_1": 7},
    },
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_loras_that_peft_saves(tmp, tmp_path):
    """Three adapters together in one bank: each row wears its own, as each does in PEFT."""
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import T5ForConditionalGeneration

    base, folder, _ = made("v1.1", tmp)
    batch, expected = batch_of("left"), {}
    for name, options in PEFT.items():
        plain = T5ForConditionalGeneration.from_pretrained
        model = get_peft_model(plain(folder), LoraConfig(**options, task_type="SEQ_2_SEQ_LM")).eval()
        with torch.no_grad():
            for key, value in model.named_parameters():
                if ".lora_" in key:
                    value.copy_(torch.randn(value.shape) * 0.3)
        model.save_pretrained(tmp_path / "pool" / name)
        expected[name] = theirs(
            PeftModel.from_pretrained(plain(folder), tmp_path / "pool" / name).eval(), batch
        )
    pool, _ = read_pool(tmp_path / "pool", base.sites, base.shapes, base.layers, base.fingerprint)
    bare = ours(base, batch)
    for name in PEFT:
        alone = batch._replace(expert=np.full(3, pool.names.index(name), np.int32))
        adapted = Adapted(base.model, EXPERTS, route=own_expert)
        found = np.asarray(logits(arrays_of(base, pool), jax.tree.map(jnp.asarray, alone), adapted))
        assert np.abs(found - bare)[batch.answer].max() >= 0.1
        assert off(found, expected[name], batch.answer) <= 1e-4
    mixed = batch._replace(expert=np.array([pool.names.index(name) for name in PEFT], np.int32))
    found = np.asarray(logits(arrays_of(base, pool), jax.tree.map(jnp.asarray, mixed), adapted))
    each = np.stack([expected[name][row] for row, name in enumerate(PEFT)])
    assert off(found, each, batch.answer) <= 1e-4
