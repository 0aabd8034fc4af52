"""Answers in words: batches and chunks change nothing, stop strings are met exactly, other values compile nothing."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import shell
import tiny
import world

from moejax.adapted import head, run
from moejax.evaluate import completions
from moejax.evaluate.completions import Settings, complete
from moejax.experts import bank as banks
from moejax.models.prompts import bucket, encode, ends, left_padded, tokenizer_of
from moejax.types import UserError

PROMPTS = ["the ant ", "bees are many. so are", "c"]
NEW = 12
HOT = {"temperature": 2.0, "top_p": 0.3, "seed": 4}


def ids(made, texts=PROMPTS):
    return [encode(made.base, text) for text in texts]


def answers(made, prompts, **settings):
    return complete(made.base, made.adapted, made.arrays, prompts, Settings(**settings))


def texts(made, prompts, **settings):
    return [one.text for one in answers(made, prompts, **settings)]


def uncached(made, prompt, new):
    """Greedy tokens by whole forwards without a cache."""
    width = bucket(len(prompt) + new)

    @jax.jit
    def following(arrays, batch):
        return head(made.adapted.model, arrays, run(made.adapted, arrays, batch).hidden[:, -1])

    row = list(prompt)
    while len(row) < len(prompt) + new and not (len(row) > len(prompt) and row[-1] in ends(made.base)):
        batch = left_padded([row], 1, least=width)
        asked = batch.mask & (np.cumsum(batch.mask, axis=1) <= len(prompt))
        row.append(int(following(made.arrays, batch._replace(prompt=asked))[0].argmax()))
    return row[len(prompt) :]


@pytest.mark.parametrize("method", ["base", "arrow(k=2)", "uniform"])
def test_batched_and_cached_equals_one_by_one_and_uncached(method):
    made = shell.made(method)
    prompts = ids(made)
    together = answers(made, prompts, max_new=NEW)
    for prompt, answer in zip(prompts, together, strict=True):
        assert list(answer.tokens) == uncached(made, prompt, NEW)
        assert answer.text == tokenizer_of(made.base).decode(answer.tokens, skip_special_tokens=True)
        assert answer.ended == ("end" if answer.tokens[-1] in ends(made.base) else "length")
    assert (
        together
        == answers(made, prompts, max_new=NEW, batch=1)
        == answers(made, prompts, max_new=NEW, batch=2)
    )


def test_experts_change_what_is_said():
    bare, routed = (answers(shell.made(m), ids(shell.made(m)), max_new=NEW) for m in ("base", "arrow(k=2)"))
    assert [one.tokens for one in bare] != [one.tokens for one in routed]


def spanning(made, answer):
    """A stop string that begins within one token and ends within a later one, and how many tokens it takes."""
    decode = tokenizer_of(made.base).decode
    at = len(decode(answer.tokens[:5])) - 1
    return answer.text[at : at + 3]


@pytest.mark.parametrize("chunk", [1, 3, 16])
def test_a_stop_string_that_spans_tokens_ends_the_answer_before_it(chunk):
    made = shell.made("arrow(k=2)")
    prompts = ids(made)
    whole = answers(made, prompts, max_new=NEW)
    stop = spanning(made, whole[0])
    assert len(stop) == 3
    decode = tokenizer_of(made.base).decode
    for answer, before in zip(
        answers(made, prompts, max_new=NEW, stop=(stop,), chunk=chunk), whole, strict=True
    ):
        if stop not in before.text:
            assert answer == before
            continue
        assert answer.ended == "stop"
        assert answer.text == before.text[: before.text.index(stop)]
        n = len(answer.tokens)
        assert answer.tokens == before.tokens[:n] and stop in decode(answer.tokens)
        assert stop not in decode(answer.tokens[:-1])
    assert answers(made, prompts, max_new=NEW, stop=(stop,), chunk=chunk)[0].ended == "stop"


def test_the_earliest_of_several_stop_strings_counts():
    made = shell.made("arrow(k=2)")
    prompt = ids(made)[:1]
    whole = texts(made, prompt, max_new=NEW)[0]
    late, early = whole[7:9], whole[2:4]
    cut = min(whole.index(late), whole.index(early))
    assert texts(made, prompt, max_new=NEW, stop=(late, early)) == [whole[:cut]]
    assert texts(made, prompt, max_new=NEW, stop=("never said",)) == [whole]


def test_the_text_of_a_special_token_stops_at_its_id():
    made = shell.made("base")
    tokens, end = tokenizer_of(made.base), ends(made.base)
    prompts, drawn = ids(made, ["the ant ", "zz", "oh, ", "why"]), {"max_new": 60, "temperature": 3.0}
    whole = answers(made, prompts, **drawn)
    assert [one.text for one in answers(made, prompts, **drawn, stop=("</s>",))] == [
        one.text for one in whole
    ]
    ended = [one for one in whole if one.ended == "end"]
    assert ended and all(one.tokens[-1] in end and "</s>" not in one.text for one in ended)
    begun = [tokens.bos_token_id in one.tokens for one in whole]
    assert any(begun)
    for one, cut, has in zip(whole, answers(made, prompts, **drawn, stop=("<s>",)), begun, strict=True):
        n = one.tokens.index(tokens.bos_token_id) + 1 if has else len(one.tokens)
        assert cut.tokens == one.tokens[:n] and cut.ended == ("end" if has else one.ended)


def test_nothing_is_computed_after_every_row_has_met_its_stop_string():
    made, seen = shell.made("arrow(k=2)"), []
    prompts = ids(made)
    stop = tuple(one.text[1] for one in answers(made, prompts, max_new=NEW))
    settings = Settings(max_new=NEW, stop=stop, chunk=4)
    complete(made.base, made.adapted, made.arrays, prompts, settings, say=lambda *a: seen.append(a))
    assert [last for *_, last in seen] == [True] * len(prompts)


def test_what_is_drawn_follows_from_the_seed():
    made = shell.made("arrow(k=2)")
    prompts, drawn = ids(made), {"max_new": NEW, "temperature": 1.5}
    first = texts(made, prompts, **drawn)
    assert first == texts(made, prompts, **drawn)
    assert first == texts(made, prompts, **drawn, stop=("never said",), chunk=5)
    assert first != texts(made, prompts, **drawn, seed=1)
    assert texts(made, prompts, **drawn, top_p=1e-6) == texts(made, prompts, max_new=NEW)


def test_who_reads_along_sees_the_answer_grow():
    made, seen = shell.made("arrow(k=2)"), []
    settings = Settings(max_new=NEW, chunk=4)
    answer = complete(
        made.base, made.adapted, made.arrays, ids(made)[:1], settings, say=lambda *a: seen.append(a)
    )
    assert len(seen) == 3 and [last for *_, last in seen] == [False, False, True]
    assert all(seen[i + 1][1].startswith(seen[i][1].rstrip("\ufffd")) for i in range(2))
    assert seen[-1][1] == answer[0].text


@pytest.mark.slow
def test_other_lengths_numbers_and_experts_compile_nothing():
    made = shell.made("arrow(k=2)")
    some = ids(made, ["the ant ", "many bees", "c", "so"])
    arrays = made.arrays
    watched = {"stop": ("never said",), "temperature": 0.7, "top_p": 0.9, "max_new": NEW, "chunk": 3}
    complete(made.base, made.adapted, arrays, some, Settings(max_new=NEW))
    complete(made.base, made.adapted, arrays, some, Settings(**watched))
    bank = banks.drop(arrays["bank"], jnp.int32(1))
    more = banks.append(bank, tiny_expert(made), jnp.int32(1))
    others = ids(made, ["the ants and", "m", "cats. are"])
    with world.compiles() as compiled:
        complete(made.base, made.adapted, arrays | {"bank": bank}, some, Settings(max_new=NEW))
        complete(made.base, made.adapted, arrays | {"bank": more}, others, Settings(max_new=NEW - 5))
        complete(
            made.base, made.adapted, arrays, others, Settings(**watched | {"stop": ("a", "of"), "chunk": 4})
        )
        complete(
            made.base,
            made.adapted,
            arrays,
            some,
            Settings(**watched | {"temperature": 2.0, "top_p": 0.3, "seed": 4}),
        )
    assert compiled == []
    with world.compiles() as compiled:
        complete(made.base, made.adapted, arrays, ids(made, ["the ant " * 9]), Settings(max_new=NEW))
    assert compiled, "a longer prompt than the bucket holds is another program: the test can see one"


def tiny_expert(made):
    """One more expert of the modules that the others adapt."""
    like = banks.expert(made.arrays["bank"], made.pool.names, 0)
    return like._replace(name="dog", loras={site: one._replace(a=-one.a) for site, one in like.loras.items()})


def test_the_programs_are_those_two():
    made = shell.made("base")
    prompts, before = ids(made)[:1], completions._first._cache_size()
    answers(made, prompts, max_new=9, batch=1)
    answers(made, prompts, max_new=11, batch=1)
    assert completions._first._cache_size() <= before + 1


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"max_new": 0}, "--max-new is 0: expected 1 or more"),
        ({"temperature": -1.0}, "--temperature is -1.0: expected 0 or more"),
        ({"top_p": 0.0}, "--top-p is 0.0: expected above 0 and at most 1"),
        ({"top_p": 1.1}, "--top-p is 1.1"),
        ({"batch": 0}, "--batch is 0"),
        ({"stop": ("",)}, "expected texts of one letter or more"),
        ({"max_new": 600}, "would pass the 512 positions of the base"),
    ],
)
def test_senseless_settings_are_refused(wrong, said):
    made = shell.made("base")
    with pytest.raises(UserError, match=said):
        answers(made, ids(made), **wrong)


def test_an_encoder_writes_no_text():
    made = shell.made("base")
    with pytest.raises(UserError, match="is an encoder, which writes no text"):
        complete(replace(tiny.base("encoder")), made.adapted, made.arrays, [[1]], Settings())


@pytest.mark.parametrize("method", ["base", "arrow(k=2)"])
def test_where_a_generation_stands_is_donated_from_chunk_to_chunk(method, monkeypatch):
    made, more, seen = shell.made(method), completions._more, []

    def watched(arrays, loop, *rest, **options):
        after = more(arrays, loop, *rest, **options)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(loop.state))  # tokens are still looked at
        assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((arrays, after)))
        seen.append(after)
        return after

    monkeypatch.setattr(completions, "_more", watched)
    answers(made, ids(made), max_new=NEW, chunk=4, stop=("never there",))
    assert seen
