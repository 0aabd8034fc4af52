"""Lines of tokens and batches, for encoders and decoders."""

from dataclasses import replace

import numpy as np
import pytest

from moejax.data.batch import bucket, collate, widest
from moejax.data.encode import encode, fed
from moejax.data.tasks import labels
from moejax.types import UserError


def decoded(tokenizer, ids) -> str:
    return tokenizer.decode(list(ids))


def test_encoder_form_pools_the_text_alone(review, encoder_tokenizer):
    made = encode(review, review.rows["train"], encoder_tokenizer, 32, "encoder", labels([review]))
    batch = collate(made)
    assert decoded(encoder_tokenizer, batch.tokens[0][batch.mask[0]]) == (
        "[CLS] a great enjoyable movie is this review positive or negative ? [SEP]"
    )
    assert decoded(encoder_tokenizer, batch.tokens[0][batch.pool[0]]) == "a great enjoyable movie"
    assert batch.tokens.shape == (2, 16) and made.cut == 0
    np.testing.assert_array_equal(batch.prompt, batch.mask)
    np.testing.assert_array_equal(batch.targets, [1, 0])
    np.testing.assert_array_equal(batch.choices, [[0, 1], [0, 1]])
    assert batch.tokens[0][~batch.mask[0]].tolist() == [encoder_tokenizer.pad_token_id] * 3
    assert batch.expert is None and batch.answer is None


def test_a_long_text_is_cut_and_the_instruction_survives(review, encoder_tokenizer, decoder_tokenizer):
    for kind, tokenizer in (("encoder", encoder_tokenizer), ("decoder", decoder_tokenizer)):
        whole = encode(review, review.rows["train"], tokenizer, 200, kind, labels([review]))
        window = whole.longest - 2
        cut = encode(review, review.rows["train"], tokenizer, window, kind, labels([review]))
        assert whole.cut == 0
        assert cut.cut == sum(fed(line) > window for line in whole.lines) > 0
        assert cut.longest == window
        for long, short in zip(whole.lines, cut.lines, strict=True):
            kept = short.text[1] - short.text[0]
            assert kept > 0 and long.tokens[: long.text[0] + kept] == short.tokens[: short.text[1]]
            assert long.tokens[long.text[1] :] == short.tokens[short.text[1] :]


def test_a_window_without_room_for_text_is_refused(review, encoder_tokenizer, decoder_tokenizer):
    encode(review, review.rows["train"], encoder_tokenizer, 10, "encoder", labels([review]))
    with pytest.raises(UserError, match="review, row 0: .* 9 tokens .* window of 9; use a window above 9"):
        encode(review, review.rows["train"], encoder_tokenizer, 9, "encoder", labels([review]))
    with pytest.raises(UserError, match="no room"):
        encode(review, review.rows["train"], decoder_tokenizer, 9, "decoder")


def test_label_rows_are_global_and_padded(review, animals, encoder_tokenizer):
    from dataclasses import replace

    animals = replace(animals, kind="classification")
    every = labels([review, animals])
    part = encode(animals, animals.rows["train"], encoder_tokenizer, 32, "encoder", every)
    assert [every[i] for i in part.lines[1].options] == ["yes", "no", "maybe"]
    np.testing.assert_array_equal(collate(part).choices[0], [every.index("bird"), every.index("farm"), -1])
    both = [part, encode(review, review.rows["train"], encoder_tokenizer, 32, "encoder", every)]
    width, options = widest(both)
    shapes = [collate(one, width=width, options=options) for one in both]
    assert shapes[0].tokens.shape == shapes[1].tokens.shape
    assert shapes[0].choices.shape == shapes[1].choices.shape
    with pytest.raises(UserError, match="not among the label phrases"):
        encode(review, review.rows["train"], encoder_tokenizer, 32, "encoder", every[1:])


def test_free_text_needs_a_decoder(animals, encoder_tokenizer):
    with pytest.raises(UserError, match="animals has free text"):
        encode(animals, animals.rows["train"], encoder_tokenizer, 32, "encoder")


def test_decoder_form_predicts_the_answer_and_the_end(review, decoder_tokenizer):
    made = encode(review, review.rows["train"], decoder_tokenizer, 100, "decoder")
    batch = collate(made)
    for i, row in enumerate(review.rows["train"]):
        assert decoded(decoder_tokenizer, batch.tokens[i][batch.prompt[i]]) == (
            f"<s>{row.input}\n{row.instruction}\n"
        )
        assert decoded(decoder_tokenizer, batch.targets[i][batch.answer[i]]) == row.target + "</s>"
        n = batch.mask[i].sum()
        np.testing.assert_array_equal(batch.targets[i][: n - 1], batch.tokens[i][1:n])
    assert batch.choices is None and batch.pool is None and not (batch.answer & ~batch.mask).any()


def test_left_padding_moves_everything_together(review, decoder_tokenizer):
    made = encode(review, review.rows["train"], decoder_tokenizer, 100, "decoder")
    right, left = collate(made), collate(made, left=True)
    assert left.mask[:, -1].all() and not left.mask.all()
    for field in ("tokens", "prompt", "targets", "answer"):
        for i in range(2):
            a, b = getattr(right, field)[i], getattr(left, field)[i]
            np.testing.assert_array_equal(a[right.mask[i]], b[left.mask[i]])


def test_ranked_choices_share_one_prompt(animals, decoder_tokenizer):
    made = encode(animals, animals.rows["train"], decoder_tokenizer, 100, "decoder", answers="each")
    assert [(line.row, line.choice, line.target) for line in made.lines] == [
        (0, 0, 1), (0, 1, 1), (1, 0, 2), (1, 1, 2), (1, 2, 2)
    ]  # fmt: skip
    batch = collate(made)
    said = [decoded(decoder_tokenizer, t[a]) for t, a in zip(batch.targets, batch.answer, strict=True)]
    assert said == ["bird</s>", "farm</s>", "yes</s>", "no</s>", "maybe</s>"]
    tight = max(fed(line) for line in made.lines[2:]) - 1
    cut = encode(animals, animals.rows["train"][1:], decoder_tokenizer, tight, "decoder", answers="each")
    assert cut.cut == 1 and len({tuple(line.tokens[: line.request]) for line in cut.lines}) == 1


def test_an_answer_without_its_end_is_weighed_by_its_own_tokens(animals, review, decoder_tokenizer):
    ranked = collate(
        encode(animals, animals.rows["train"], decoder_tokenizer, 100, "decoder", answers="each", end=False)
    )
    said = [decoded(decoder_tokenizer, t[a]) for t, a in zip(ranked.targets, ranked.answer, strict=True)]
    assert said == ["bird", "farm", "yes", "no", "maybe"]
    own = collate(encode(review, review.rows["train"], decoder_tokenizer, 100, "decoder", end=False))
    assert decoded(decoder_tokenizer, own.targets[0][own.answer[0]]) == "positive"


def test_requests_for_generation_hold_no_answer(review, decoder_tokenizer):
    made = encode(review, review.rows["test"], decoder_tokenizer, 100, "decoder", answers="none")
    batch = collate(made, left=True)
    np.testing.assert_array_equal(batch.prompt, batch.mask)
    assert not batch.answer.any()
    assert decoded(decoder_tokenizer, batch.tokens[0][batch.mask[0]]).endswith(review.instruction + "\n")


def test_ranking_free_text_is_refused(review, animals, decoder_tokenizer):
    from dataclasses import replace

    free = replace(animals.rows["train"][0], choices=None)
    with pytest.raises(UserError, match="row 0 has no choices"):
        encode(animals, [free], decoder_tokenizer, 100, "decoder", answers="each")


def test_filler_rows_weigh_nothing(review, encoder_tokenizer):
    made = encode(review, review.rows["train"], encoder_tokenizer, 32, "encoder", labels([review]))
    batch = collate(made, [1], size=3, expert=4)
    np.testing.assert_array_equal(batch.weight, [1, 0, 0])
    np.testing.assert_array_equal(batch.expert, [4, 4, 4])
    np.testing.assert_array_equal(batch.tokens[2], batch.tokens[0])
    np.testing.assert_array_equal(batch.tokens[0], collate(made).tokens[1])
    with pytest.raises(UserError, match="cannot hold 2 lines"):
        collate(made, size=1)
    with pytest.raises(UserError, match="exceeds 8"):
        collate(made, width=8)


def test_a_text_without_tokens_is_refused(review, encoder_tokenizer):
    from dataclasses import replace

    row = replace(review.rows["test"][0], input=" ")
    with pytest.raises(UserError, match="review, row 0: this tokenizer finds no token"):
        encode(review, [row], encoder_tokenizer, 32, "encoder", labels([review]))


def test_nothing_to_encode(review, encoder_tokenizer):
    made = encode(review, (), encoder_tokenizer, 32, "encoder", labels([review]))
    assert made.lines == [] and made.longest == 0 and made.most == 0


@pytest.mark.parametrize(("length", "width"), [(1, 8), (8, 8), (9, 16), (48, 48)])
def test_widths_are_bucketed(length, width):
    assert bucket(length) == width


def test_an_encoder_needs_its_own_tokenizer(review, decoder_tokenizer):
    with pytest.raises(UserError, match=r"no \[CLS\] and \[SEP\] tokens"):
        encode(review, review.rows["train"], decoder_tokenizer, 64, "encoder", labels([review]))


def test_seq2seq_keeps_request_and_answer_apart(review, animals, seq2seq_tokenizer):
    made = encode(review, review.rows["train"], seq2seq_tokenizer, 32, "seq2seq")
    batch = collate(made, left=True)
    assert decoded(seq2seq_tokenizer, batch.tokens[0][batch.mask[0]]) == (
        "a great enjoyable movie is this review positive or negative ? </s>"
    )
    np.testing.assert_array_equal(batch.prompt, batch.mask)
    answers = [
        decoded(seq2seq_tokenizer, t[real]) for t, real in zip(batch.targets, batch.answer, strict=True)
    ]
    assert answers == [f"{row.target} </s>" for row in review.rows["train"]]
    assert batch.choices is None and batch.pool is None and batch.mask[:, -1].all()
    each = encode(animals, animals.rows["train"], seq2seq_tokenizer, 32, "seq2seq", answers="each")
    per_row = [len(animals.options(row)) for row in animals.rows["train"]]
    assert [line.choice for line in each.lines] == [i for n in per_row for i in range(n)]
    width, options = widest([made, each])
    assert collate(made, width=width, options=options).targets.shape == (2, options)
    with pytest.raises(UserError, match="tokens of its answer exceeds"):
        collate(made, options=1)
    none = encode(review, review.rows["train"], seq2seq_tokenizer, 32, "seq2seq", answers="none")
    assert collate(none).targets is None and collate(none).answer is None


def test_a_seq2seq_window_is_the_requests(review, seq2seq_tokenizer, encoder_tokenizer):
    whole = encode(review, review.rows["train"], seq2seq_tokenizer, 200, "seq2seq")
    cut = encode(review, review.rows["train"], seq2seq_tokenizer, whole.longest - 2, "seq2seq")
    assert whole.cut == 0 < cut.cut and cut.longest == whole.longest - 2
    assert [line.tokens[-1] for line in cut.lines] == [seq2seq_tokenizer.eos_token_id] * len(cut.lines)
    assert [line.said for line in cut.lines] == [line.said for line in whole.lines]
    with pytest.raises(UserError, match="no end token"):
        encode(review, review.rows["train"], encoder_tokenizer, 32, "seq2seq")


def test_an_empty_instruction_takes_no_token(review, seq2seq_tokenizer, decoder_tokenizer):
    rows = [replace(row, instruction="") for row in review.rows["train"]]
    both = encode(review, rows, seq2seq_tokenizer, 200, "seq2seq", end=False)
    for line, row in zip(both.lines, rows, strict=True):
        assert decoded(seq2seq_tokenizer, line.tokens[: line.text[1]]) == decoded(
            seq2seq_tokenizer, seq2seq_tokenizer(row.input, add_special_tokens=False)["input_ids"]
        )
        assert line.tokens[line.text[1] :] == [seq2seq_tokenizer.eos_token_id]
        assert (
            line.said and line.said[-1] != seq2seq_tokenizer.eos_token_id
        )  # end=False: the answer's own tokens
