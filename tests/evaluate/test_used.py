"""Which expert a token used: the weights of decoding itself, token by token."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import shell

from moejax.adapted import empty, run
from moejax.evaluate.completions import Settings, complete
from moejax.evaluate.used import used
from moejax.models.prompts import encode, left_padded
from moejax.routing import select
from moejax.site import at_slots, sown
from moejax.types import Batch

NEW = 6


def by_steps(made, prompt, answer):
    """The weights of the steps that wrote the answer, recorded while decoding, over adapted sites: [n, e]."""
    batch, bank = left_padded([prompt], 1), made.arrays["bank"]
    cache = empty(made.adapted, made.arrays, 1, batch.tokens.shape[1] + NEW)
    ran = jax.jit(partial(run, made.adapted, record=True))(made.arrays, batch, cache=cache)
    kept, found = {"held": ran.held, "outer": ran.outer}, [ran]
    step = jax.jit(partial(run, made.adapted, record=True))
    for token in answer[:-1]:
        one = jnp.ones((1, 1), bool)
        fed = Batch(jnp.array([[token]]), one, ~one)
        found.append(step(made.arrays, fed, cache=found[-1].cache, **kept))
    return np.stack([mean_weights(each, bank) for each in found])


def mean_weights(ran, bank):
    """The mean over adapted sites at the last token: [e]."""
    each = []
    for path, w in sown(ran.records, "weights").items():
        if path in bank.sites:
            here = np.asarray(at_slots(select.dense(w, bank.alive.size), bank.sites[path]))
            each.append(here[:, 0, -1] if here.ndim == 4 else here)
    return np.concatenate(each).mean(axis=0)


@pytest.mark.parametrize("method", ["arrow(k=2)", "uniform"])
def test_the_weights_are_those_of_decoding(method):
    made = shell.made(method)
    prompt = encode(made.base, "the ant ")
    (answer,) = complete(made.base, made.adapted, made.arrays, [prompt], Settings(max_new=NEW))
    (record,) = used(made.base, made.adapted, made.arrays, made.pool.names, [prompt], [answer.tokens])
    expected = by_steps(made, prompt, answer.tokens)[:, : len(shell.NAMES)]
    np.testing.assert_allclose(list(record["weights"].values()), expected.mean(axis=0), atol=1e-3)
    np.testing.assert_allclose(record["weight"], expected.max(axis=1), atol=1e-3)
    assert record["expert"] == [shell.NAMES[i] for i in expected.argmax(axis=1)]
    assert "".join(record["tokens"]) == answer.text


def test_an_answer_of_nothing_has_no_tokens():
    made = shell.made("uniform")
    (record,) = used(made.base, made.adapted, made.arrays, made.pool.names, [[1, 2]], [[]])
    assert record["tokens"] == record["expert"] == [] and set(record["weights"].values()) == {0.0}
