"""Tasks: options, phrases, the label matrix and the hash."""

from dataclasses import replace

from moejax.data.tasks import Row, data_hash, labels


def test_options_phrases_and_answer(review, animals):
    row = review.rows["train"][0]
    assert review.options(row) == ("negative", "positive")
    assert review.phrases(row) == ("a terrible movie", "a great movie")
    assert review.answer(row) == 1
    assert review.groups == ("seen", "unseen")
    assert animals.phrases(animals.rows["train"][1]) == ("yes", "no", "maybe")
    assert animals.answer(animals.rows["train"][1]) == 2


def test_a_rows_own_choices_keep_the_phrases_they_have(review):
    row = Row("x", "y", "positive", choices=("neither", "positive"))
    assert review.phrases(row) == ("neither", "a great movie")
    own = replace(review, rows={"train": (row,), "validation": (), "test": ()})
    assert labels([own]) == ["a terrible movie", "a great movie", "neither"]


def test_labels_hold_each_phrase_once_and_no_free_text(review, animals):
    twin = replace(review, name="twin", label_text=("a great movie", "a dull movie"))
    assert labels([animals, review, twin]) == ["a terrible movie", "a great movie", "a dull movie"]


def test_hash_forgets_the_order_of_tasks_and_nothing_else(review, animals):
    assert data_hash([review, animals]) == data_hash([animals, review])
    row = replace(review.rows["test"][0], group="other")
    others = [
        replace(review, instruction="other"),
        replace(review, label_text=("a terrible movie", "a fine movie")),
        replace(review, rows={**review.rows, "test": (row,)}),
        replace(review, rows={**review.rows, "train": review.rows["train"][::-1]}),
    ]
    assert len({data_hash([task]) for task in [review, *others]}) == 5
