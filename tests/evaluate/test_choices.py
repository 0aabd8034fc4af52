"""A model asked in words says what `score` says of the same tokens, whatever else is asked beside it."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import tiny_folder

from moejax.adapted import Adapted
from moejax.contract import Fitted
from moejax.evaluate.choices import log_probabilities
from moejax.methods import load as method_of
from moejax.models.pooling import sentence
from moejax.models.weights import load
from moejax.types import UserError

TEXTS = ("the cat sleeps", "paris and london are in the garden today")
ASKED, CHOICES = "which animal", ("the cat", "the garden today", "paris")


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return {
        kind: load(getattr(tiny_folder, kind)(tmp_path_factory.mktemp(kind)))
        for kind in ("encoder", "decoder", "seq2seq")
    }


def uniform(base):
    """The pool's uniform merge."""
    method = method_of("uniform")
    pool = tiny.pool(base, "ann", "bob")
    config = method.Config()
    arrays = method.arrays(config, base, pool, Fitted({"places": {}, "knobs": {}}, pool.names))
    return method.adapt(config, base), arrays


def asked(base, texts=TEXTS, choices=CHOICES, **options):
    adapted, arrays = uniform(base)
    return log_probabilities(base, adapted, arrays, texts, ASKED, choices, **options)


def tokens(base, text):
    return base.tokenizer(text, add_special_tokens=False)["input_ids"]


def forward(base, ids):
    """States of one line through the bare base, [1, t, d]."""
    ids, mask = jnp.asarray([ids], jnp.int32), jnp.ones((1, len(ids)), bool)
    return base.model.apply({"params": base.params}, ids, mask)[0]


def test_an_encoders_are_the_softmax_of_similarities(bases):
    base = bases["encoder"]
    bare = {"params": base.params, "bank": uniform(base)[1]["bank"], "router": {}}
    found = log_probabilities(base, Adapted(base.model), bare, TEXTS, ASKED, CHOICES)
    first, last = base.tokenizer.cls_token_id, base.tokenizer.sep_token_id

    def vector(ids, own):
        pool = jnp.asarray([[i in own for i in range(len(ids))]])
        return np.asarray(sentence(forward(base, ids), pool))[0]

    labels = []
    for phrase in CHOICES:
        ids = base.tokenizer(phrase)["input_ids"]
        special = {first, last}
        labels.append(vector(ids, {i for i, token in enumerate(ids) if token not in special}))
    for text, row in zip(TEXTS, found, strict=True):
        ids, asks = tokens(base, text), tokens(base, f" {ASKED}")
        own = vector([first, *ids, *asks, last], set(range(1, 1 + len(ids))))
        logits = np.stack(labels) @ own / base.model.config.temperature
        assert np.allclose(row, jax.nn.log_softmax(logits), atol=2e-4)


def test_a_decoders_are_sums_over_the_answers_tokens(bases):
    base = bases["decoder"]
    bare = {"params": base.params, "bank": uniform(base)[1]["bank"], "router": {}}
    found = log_probabilities(base, Adapted(base.model), bare, TEXTS, ASKED, CHOICES)
    end = [] if base.tokenizer.eos_token_id is None else [base.tokenizer.eos_token_id]
    for text, row in zip(TEXTS, found, strict=True):
        request = tokens(base, text) + tokens(base, f"\n{ASKED}\n")
        for choice, value in zip(CHOICES, row, strict=True):
            answer = tokens(base, choice) + end
            states = forward(base, request + answer)
            logits = base.model.apply({"params": base.params}, states, method="head")[0]
            logp = np.asarray(jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1))
            at = len(request) - 1
            assert np.isclose(value, sum(logp[at + i, token] for i, token in enumerate(answer)), atol=2e-3)


@pytest.mark.slow
def test_a_seq2seqs_are_sums_over_the_answers_tokens(bases):
    base = bases["seq2seq"]
    bare = {"params": base.params, "bank": uniform(base)[1]["bank"], "router": {}}
    found, end = (
        log_probabilities(base, Adapted(base.model), bare, TEXTS, ASKED, CHOICES),
        base.tokenizer.eos_token_id,
    )
    for text, row in zip(TEXTS, found, strict=True):
        request = jnp.asarray([[*tokens(base, text), *tokens(base, f" {ASKED}"), end]])
        for choice, value in zip(CHOICES, row, strict=True):
            answer = [*tokens(base, choice), end]
            fed, seen = (
                jnp.asarray([[base.model.config.begin, *answer[:-1]]]),
                jnp.ones((1, len(answer)), bool),
            )
            states, _ = base.model.apply({"params": base.params}, request, request >= 0, fed, seen)
            logits = base.model.apply({"params": base.params}, states, method="head")[0]
            logp = np.asarray(jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1))
            assert np.isclose(value, sum(logp[i, token] for i, token in enumerate(answer)), atol=2e-3)


@pytest.mark.parametrize("kind", ["encoder", "decoder", "seq2seq"])
def test_experts_matter_and_neighbours_do_not(bases, kind):
    base = bases[kind]
    found = asked(base)
    assert found.shape == (2, 3)
    assert np.isfinite(found).all()
    bare = log_probabilities(base, Adapted(base.model), uniform(base)[1], TEXTS, ASKED, CHOICES)
    assert np.abs(found - bare).max() > 1e-3
    assert np.allclose(asked(base, TEXTS[1:])[0], found[1], atol=1e-4)
    turned = asked(base, TEXTS, CHOICES[::-1])
    assert np.allclose(turned[:, ::-1], found, atol=1e-4)


def test_an_encoders_choices_share_one_probability(bases):
    assert np.allclose(np.exp(asked(bases["encoder"])).sum(axis=1), 1, atol=1e-5)


def test_a_long_text_is_cut_to_what_the_base_holds(bases):
    long = "the cat sleeps in the garden " * 40
    assert np.isfinite(asked(bases["encoder"], (long,))).all()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"choices": ("one",)}, "give at least two"),
        ({"choices": ("one", "one")}, "each once"),
        ({"texts": ()}, "texts is empty"),
    ],
)
def test_what_cannot_be_asked_is_said(bases, options, sentence):
    with pytest.raises(UserError, match=sentence):
        asked(bases["encoder"], **options)


def test_a_base_without_tokenizer_is_said(bases):
    with pytest.raises(UserError, match="no tokenizer"):
        asked(replace(bases["encoder"], read_tokenizer=None))
