"""A T5 on its own: read and written, its two sides, padding, the cache, and what is refused."""

import dataclasses
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import tiny_folder

from moejax.adapted import Adapted, head, prefix, run, score, start, step
from moejax.loss import entropy, row_loss
from moejax.models.distance import bucket_of, bucketed
from moejax.models.generate import generate
from moejax.models.seq2seq import said
from moejax.models.weights import faults, load, random_base, save
from moejax.types import Batch, UserError

CONFIG = tiny.CONFIGS["seq2seq"]
FORMS = {
    "own head": {},
    "tied": {"tied": True, "shrunk": True},
    "plain": {"gated": False, "activation": "relu", "encoder_layers": 3},
}


def arrays_of(base):
    pool = tiny.pool(base, "ann")
    return {"params": base.params, "bank": pool.bank, "router": {}, "labels": None}


@pytest.fixture(scope="module")
def bare():
    base = tiny.base("seq2seq")
    return base, Adapted(base.model), arrays_of(base)


@pytest.mark.parametrize("form", FORMS)
def test_a_folder_gives_the_base_back(form, tmp_path):
    base = random_base(dataclasses.replace(CONFIG, remat=True, **FORMS[form]))
    save(base, tmp_path)
    again = load(tmp_path)
    assert again.model == base.model and again.fingerprint == base.fingerprint and not list(faults(tmp_path))
    jax.tree.map(np.testing.assert_array_equal, again.params, base.params)
    assert again.sites == base.sites and again.kind == "seq2seq"


def test_sites_are_the_linears_under_their_names(bare):
    base, last = bare[0], CONFIG.layers - 1
    assert base.sites["encoder.block.0.layer.0.SelfAttention.q"] == ("encoder_layers/attn/q", last)
    assert base.sites["decoder.block.0.layer.1.EncDecAttention.k"] == ("cross_layers/cross/k", 0)
    assert base.sites["decoder.block.1.layer.1.EncDecAttention.o"] == ("layers/cross/o", last)
    assert base.sites["decoder.block.1.layer.2.DenseReluDense.wi_0"] == ("layers/mlp/gate", last)
    assert len(base.sites) == 7 * CONFIG.encoder_layers + 11 * CONFIG.decoder_layers
    assert {path for path, _ in base.sites.values()} == base.shapes.keys()


@pytest.mark.slow
def test_bfloat16_stays_bfloat16(tmp_path):
    save(random_base(CONFIG), tmp_path)
    base = load(tmp_path, dtype="bfloat16")
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(base.params))
    batch = jax.tree.map(jnp.asarray, tiny.as_batch(tiny.rows(base, 2)))
    assert run(Adapted(base.model), arrays_of(base), batch).hidden.dtype == jnp.bfloat16


def test_buckets_of_the_paper():
    """32 buckets up to 128: sixteen distances of their own, then ranges up to 127 and above."""
    table = bucket_of(32, 128)
    assert table[:16].tolist() == list(range(16)) and table[16] == 16 and table[113:].tolist() == [31] * 16
    assert (np.diff(table) >= 0).all() and len(np.unique(table)) == 32
    both = np.asarray(bucketed(jnp.array([200]), jnp.arange(400), 32, 128, True))[0]
    assert both[200] == 0 and both[199] == 1 and both[201] == 17 and both[0] == 15 and both[399] == 31
    ahead = np.asarray(bucketed(jnp.array([200]), jnp.arange(400), 32, 128, False))[0]
    assert (ahead[200:] == 0).all() and ahead[199] == 1 and ahead[0] == 31


def test_what_the_decoder_is_fed():
    targets, answer = (
        jnp.array([[5, 6, 7], [8, 9, 9]]),
        jnp.array([[False, True, True], [True, False, False]]),
    )
    fed = said(
        dataclasses.replace(CONFIG, begin=2), Batch(*jnp.ones((3, 2, 4), int), targets=targets, answer=answer)
    )
    assert fed.tokens.tolist() == [[2, 5, 6], [2, 2, 2]]
    assert fed.mask.tolist() == [[True, True, True], [True, False, False]]
    assert fed.prompt.tolist() == [[True, False, False]] * 2
    alone = said(CONFIG, Batch(*jnp.ones((3, 2, 4), int)))
    assert alone.tokens.tolist() == [[0], [0]] and alone.mask.all() and alone.prompt.all()


def test_padding_changes_nothing_and_no_token_sees_a_later_one(bare):
    base, adapted, arrays = bare
    batch = jax.tree.map(jnp.asarray, tiny.as_batch(tiny.rows(base, 4)))
    found = jax.jit(lambda batch: score(adapted, arrays, batch)[0])
    before, real = found(batch), np.asarray(batch.answer)
    rolled = batch._replace(tokens=jnp.roll(batch.tokens, 3, 1), mask=jnp.roll(batch.mask, 3, 1))
    np.testing.assert_allclose(np.asarray(found(rolled))[real], before[real], atol=1e-4)
    noise = batch._replace(
        tokens=jnp.where(batch.mask, batch.tokens, 7), targets=jnp.where(real, batch.targets, 9)
    )
    np.testing.assert_allclose(np.asarray(found(noise))[real], before[real], atol=1e-5)
    later = np.asarray(found(batch._replace(targets=batch.targets.at[:, 3].set(1))))
    assert np.array_equal(later[:, :3], before[:, :3]) and np.abs(later[:, 4] - before[:, 4]).max() > 1e-3
    other = np.asarray(found(batch._replace(tokens=batch.tokens.at[:, 0].set(1))))
    assert np.abs(other - before)[real].max() > 0.1  # the text is read


@pytest.mark.slow
def test_losses_and_entropies(bare):
    base, adapted, arrays = bare
    batch = jax.tree.map(jnp.asarray, tiny.as_batch(tiny.rows(base, 4)))
    logp, losses, given = jax.jit(
        lambda arrays, batch: tuple(f(adapted, arrays, batch)[0] for f in (score, row_loss, entropy))
    )(arrays, batch)
    sums = [-np.mean(np.asarray(row)[real]) for row, real in zip(logp, np.asarray(batch.answer), strict=True)]
    np.testing.assert_allclose(losses, sums, rtol=1e-5)
    first = head(base.model, arrays, run(adapted, arrays, batch).hidden)[:, 0]
    p = np.asarray(jax.nn.softmax(first), float)
    np.testing.assert_allclose(given, -(p * np.log(p)).sum(-1), rtol=1e-4)


def test_generation_is_what_the_uncached_model_says_and_stops_at_the_end(bare):
    base, adapted, arrays = bare
    batch = jax.tree.map(jnp.asarray, tiny.as_batch(tiny.rows(base, 4)))
    begin, further = partial(start, adapted, room=8), partial(step, adapted)

    @partial(jax.jit, static_argnames="eos")
    def write(arrays, batch, eos=()):
        return generate(lambda a, b: begin(a, b), further, arrays, batch, max_new=8, eos=eos, pad=0)

    @jax.jit
    def whole(arrays, batch):
        return jnp.argmax(head(adapted.model, arrays, run(adapted, arrays, batch).hidden), axis=-1)

    found = write(arrays, batch)
    teacher = batch._replace(targets=found.tokens, answer=jnp.ones_like(found.tokens, bool))
    assert np.array_equal(whole(arrays, teacher), found.tokens)
    last = int(found.tokens[1, 4])
    stopped = write(arrays, batch, eos=(last,))
    for row, full, length in zip(
        *map(np.asarray, (stopped.tokens, found.tokens, stopped.length)), strict=True
    ):
        assert row[:length].tolist() == full[:length].tolist() and not row[length:].any()
        assert length == (list(full).index(last) + 1 if last in full else 8)
    assert int(stopped.length[1]) <= 5


def test_there_is_no_prefix(bare):
    base, adapted, arrays = bare
    batch = jax.tree.map(jnp.asarray, tiny.as_batch(tiny.rows(base, 2)))
    with pytest.raises(ValueError, match="no prefix"):
        prefix(base.model, base.params, batch, 1)
    with pytest.raises(ValueError, match="prefix"):
        run(adapted, arrays, batch._replace(prefix=jnp.zeros((2, 12, 16))))


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("feed_forward_proj", "gated-swiglu", "feed_forward_proj is 'gated-swiglu'; expected one of relu"),
        ("feed_forward_proj", ["relu"], "feed_forward_proj is"),
        ("tie_word_embeddings", "no", "tie_word_embeddings is 'no'; expected true or false"),
        ("decoder_start_token_id", 10**6, "decoder starts from token 1000000"),
        ("num_decoder_layers", 0, "num_decoder_layers is 0"),
        ("d_kv", None, "d_kv is None"),
        ("relative_attention_num_buckets", 7, "7 relative_attention_num_buckets"),
        ("relative_attention_max_distance", 4, "for distances up to 4"),
        ("is_encoder_decoder", False, "is_encoder_decoder is False"),
        ("num_layers", 2, "the weights hold no encoder.block.1"),
        ("d_ff", 20, "config.json makes it"),
    ],
)
def test_a_config_that_is_wrong(key, value, says, tmp_path):
    save(tiny.base("seq2seq"), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(UserError, match=says):
        load(tmp_path)
    assert any(says in line for line in faults(tmp_path))


def test_the_head_is_the_files_own_where_they_hold_one(tmp_path):
    """transformers 5 writes `tie_word_embeddings` true whatever the head is."""
    base = tiny.base("seq2seq")
    save(base, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    assert load(tmp_path).fingerprint == base.fingerprint
    save(random_base(dataclasses.replace(CONFIG, tied=True)), tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    with pytest.raises(UserError, match=r"the weights hold no lm_head\.weight"):
        load(tmp_path)


def test_a_tokenizer_comes_with_it(tmp_path):
    base = load(tiny_folder.seq2seq(tmp_path))
    assert base.tokenizer.eos_token == "</s>" and base.tokenizer.pad_token_id == base.model.config.begin
