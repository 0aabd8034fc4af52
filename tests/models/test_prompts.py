"""Texts to tokens, conversations to texts, and prompts to batches; each refusal is one sentence."""

import json

import pytest
import tiny
import tiny_folder

from moejax.models.prompts import bucket, chat, encode, ends, left_padded, longest, tokenizer_of
from moejax.models.weights import load
from moejax.types import UserError


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return load(tiny_folder.speaker(tmp_path_factory.mktemp("base")))


def test_sizes_come_in_few_steps():
    assert [bucket(n) for n in (0, 1, 2, 3, 5, 8, 9)] == [1, 1, 2, 4, 8, 8, 16]
    assert [bucket(n, 16) for n in (1, 16, 17, 100)] == [16, 16, 32, 128]


def test_rows_stand_on_the_right_and_the_first_fills_the_batch():
    batch = left_padded([[1, 2, 3], [4]], 4, least=4)
    assert batch.tokens.tolist() == [[0, 1, 2, 3], [0, 0, 0, 4], [0, 1, 2, 3], [0, 1, 2, 3]]
    assert batch.mask.tolist() == (batch.tokens > 0).tolist() == batch.prompt.tolist()
    assert batch.weight.tolist() == [1, 1, 0, 0]
    assert left_padded([[1] * 17], 1).tokens.shape == (1, 32)


def test_a_conversation_is_in_the_words_of_the_template(base):
    said = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    assert chat(base, said) == "<system>be brief<user>hi<assistant>"
    begun = [*said, {"role": "assistant", "content": "well"}]
    assert chat(base, begun, answer=False) == "<system>be brief<user>hi<assistant>well"


def test_what_a_template_refuses_is_said(base, tmp_path):
    with pytest.raises(UserError, match=r"the chat template refuses these messages \(no tools here\)"):
        chat(base, [{"role": "tool", "content": "x"}])
    bare = load(tiny_folder.speaker(tmp_path, chat=None))
    with pytest.raises(UserError, match="has no chat template: leave --chat out"):
        chat(bare, [{"role": "user", "content": "x"}])


def test_a_prompt_without_tokens_and_a_foreign_id_are_refused(base, tmp_path):
    assert encode(base, "ant") == tokenizer_of(base).encode("ant") != []
    with pytest.raises(UserError, match="the prompt '' is empty"):
        encode(base, "")
    folder = tiny_folder.speaker(tmp_path)
    file = folder / "tokenizer.json"
    told = json.loads(file.read_text())
    told["added_tokens"].append(
        {"id": 500, "content": "<far>", "special": True, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False}
    )  # fmt: skip
    file.write_text(json.dumps(told))
    far = load(folder)
    rows = far.model.config.vocab
    with pytest.raises(UserError, match=f"the tokenizer has {rows + 1} tokens, the model rows for {rows}"):
        encode(far, "a<far>")


def test_ends_are_those_of_tokenizer_and_files(base, tmp_path):
    assert ends(base) == (tokenizer_of(base).eos_token_id,)
    folder = tiny_folder.speaker(tmp_path)
    (folder / "generation_config.json").write_text('{"eos_token_id": [3, 5]}')
    assert ends(load(folder)) == tuple(sorted({3, 5, *ends(base)}))
    (folder / "generation_config.json").write_text('{"eos_token_id": "end"}')
    with pytest.raises(UserError, match="eos_token_id is 'end': expected an id, or a list of ids"):
        ends(load(folder))
    assert ends(tiny.base("decoder")) == ()


def test_positions_are_those_that_the_folder_says(base, tmp_path):
    assert longest(base) == 512
    folder = tiny_folder.speaker(tmp_path)
    told = json.loads((folder / "config.json").read_text())
    del told["max_position_embeddings"]
    (folder / "config.json").write_text(json.dumps(told))
    assert longest(load(folder)) is None
    assert longest(tiny.base("decoder")) is None


def test_a_base_in_memory_has_no_tokenizer():
    with pytest.raises(UserError, match="has no tokenizer"):
        tokenizer_of(tiny.base("decoder"))
