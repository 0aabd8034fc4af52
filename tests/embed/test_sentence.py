"""Sentence vectors of texts: the encoder's own, one by one or together, and each text only once."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_folder

from moejax.embed import embedder as embedders
from moejax.embed.embedder import Embedder, said
from moejax.embed.sentence import sentences
from moejax.models.pooling import sentence
from moejax.models.weights import load, random_base
from moejax.types import UserError

TEXTS = [
    "the dog",
    "a bird sings in the rain near the sea",
    "music",
    "the dog",
    "what is the food of the day",
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return load(tiny_folder.encoder(tmp_path_factory.mktemp("encoder")))


def by_hand(base, text, special=True):
    """The mean of the last states, of one text alone, without padding."""
    ids = np.asarray(base.tokenizer([text])["input_ids"], np.int32)
    mask = np.ones(ids.shape, bool)
    hidden, _ = base.model.apply({"params": base.params}, jnp.asarray(ids), jnp.asarray(mask))
    inner = ~np.isin(ids, [base.tokenizer.cls_token_id, base.tokenizer.sep_token_id])
    return np.asarray(sentence(hidden, jnp.asarray(mask if special else inner)))[0]


@pytest.mark.parametrize("special", [True, False])
def test_vectors_are_those_of_each_text_alone(base, special):
    found = sentences(base, TEXTS, size=2, special=special)
    assert found.shape == (5, 16)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(found, [by_hand(base, text, special) for text in TEXTS], rtol=0, atol=1e-5)
    assert np.array_equal(found[0], found[3]) and np.abs(found[0] - found[1]).max() > 0.05


def test_a_text_is_cut_to_what_the_encoder_takes(base):
    long = "dog " * 500
    found = sentences(base, [long, "dog " * 63], special=False)
    assert np.isfinite(found).all()
    assert sentences(base, [long], window=8).shape == (1, 16)
    assert sentences(base, []).shape == (0, 16)


def test_a_decoder_gives_no_sentence_vectors():
    from tiny import CONFIGS

    with pytest.raises(UserError, match="is no encoder: sentence vectors need one"):
        sentences(random_base(CONFIGS["decoder"]), TEXTS)


def test_each_text_is_embedded_once_and_kept(base, tmp_path, monkeypatch):
    asked = []

    def counted(base, texts, **options):
        asked.append(list(texts))
        return sentences(base, texts, **options)

    monkeypatch.setattr(embedders, "sentences", counted)
    first = Embedder(base, tmp_path / "vectors")(TEXTS)
    assert asked == [["the dog", TEXTS[1], "music", TEXTS[4]]]
    again = Embedder(base, tmp_path / "vectors")(["new words", *reversed(TEXTS)])
    assert asked[1:] == [["new words"]]
    assert np.array_equal(again[1:], first[::-1])
    Embedder(base, tmp_path / "vectors")(TEXTS)
    assert len(asked) == 2
    Embedder(base)(TEXTS)  # kept nowhere
    assert len(asked) == 3 and len(list((tmp_path / "vectors").iterdir())) == 1
    assert Embedder(base)([]).shape == (0, 16)


def test_another_encoder_has_vectors_of_its_own(base, tmp_path):
    other = replace(base, fingerprint="f" * 64)
    one, two = Embedder(base, tmp_path), Embedder(other, tmp_path)
    assert one.name != two.name and one.name.endswith("-request")
    one(TEXTS)
    two(TEXTS[:1])
    assert len(list(tmp_path.iterdir())) == 2


def test_a_damaged_file_is_named(base, tmp_path):
    one = Embedder(base, tmp_path)
    one(TEXTS)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"safetensors: not whole .*; delete it and run again"):
        one(TEXTS)


def test_a_request_says_its_text_and_what_is_asked_of_it():
    assert said("the dog barks", "which animal?") == "the dog barks which animal?"
    assert said("the dog barks", "") == "the dog barks"
