"""What a T5 is asked: options are weighed by their own tokens, without the end token; free text is written."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_folder

from moejax.adapted import Adapted, score
from moejax.data.batch import collate
from moejax.data.encode import encode
from moejax.data.tasks import Row, Task
from moejax.evaluate.asked import ask
from moejax.evaluate.told import told
from moejax.experts.bank import stack
from moejax.models.weights import load
from moejax.types import UserError

CHOICES = ("cow", "the old horse", "dog")
TEXTS = ("the cow is in the garden", "a dog and a horse")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return load(tiny_folder.seq2seq(tmp_path_factory.mktemp("t5")))


def task(kind, choices=()):
    rows = tuple(Row(text, "which animal ?", CHOICES[n]) for n, text in enumerate(TEXTS))
    return Task(kind, kind, "", "which animal ?", {"test": rows}, choices, choices)


def told_by(base, some):
    """What is found for each row of the tasks, and what was asked."""
    arrays = {
        "params": base.params,
        "bank": stack([], base.shapes, base.layers),
        "router": {},
        "labels": None,
    }
    asked = ask(base, {one.name: one for one in some}, 32, 3)
    adapted = Adapted(base.model)
    return {
        name: told(adapted, arrays, one, base.tokenizer, 4, 3) for name, one in asked.items()
    }, asked, arrays  # fmt: skip


def test_an_option_is_worth_the_sum_over_its_own_tokens(base):
    some = task("classification", CHOICES)
    found, asked, arrays = told_by(base, [some])
    closed = collate(encode(some, some.rows["test"], base.tokenizer, 32, "seq2seq", answers="each"))
    logp = np.asarray(score(Adapted(base.model), arrays, jax.tree.map(jnp.asarray, closed))[0])
    own = np.array([line[real][:-1].sum() for line, real in zip(logp, closed.answer, strict=True)]).reshape(
        2, 3
    )
    assert found["classification"]["choice"].tolist() == own.argmax(axis=1).tolist()
    np.testing.assert_allclose(found["classification"]["loss"], -own[[0, 1], [0, 1]], rtol=1e-5)
    assert asked["classification"].size[:3].tolist() == [[3, 3, 1], [13, 13, 3], [3, 3, 1]]
    normed = own / np.array([3, 13, 3])
    assert found["classification"]["choice_norm"].tolist() == normed.argmax(axis=1).tolist()


def test_free_text_is_written_beside_options_of_other_tasks(base):
    found, asked, _ = told_by(base, [task("classification", CHOICES), task("generation")])
    assert asked["classification"].requests is None and asked["generation"].references == CHOICES[:2]
    assert asked["generation"].requests.whole.targets is None
    assert set(found["generation"]) == {"exact_match", "rouge_l", "loss", "bytes", "tokens"}


def test_an_answer_without_a_token_is_refused(base):
    rows = (Row("the cow", "", " "),)
    with pytest.raises(UserError, match="no token in an answer"):
        ask(base, {"x": Task("x", "generation", "", "", {"test": rows})}, 32, 3)
