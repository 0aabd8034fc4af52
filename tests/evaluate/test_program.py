"""Answers of a whole set of rows in batches, and what a batch costs beside the bare base."""

import jax
import jax.numpy as jnp
import numpy as np
import tiny
import world as worlds

from moejax.adapted import score
from moejax.evaluate.program import answers, cost


def test_answers_are_the_best_choices_in_the_order_of_rows():
    world, fit = worlds.standard("encoder"), worlds.fitted("encoder", "uniform")
    rows = tiny.rows(world.base, 11, seed=9)
    found = answers(fit.adapted, fit.arrays, rows, 4)
    logp = score(fit.adapted, fit.arrays, jax.tree.map(jnp.asarray, tiny.as_batch(rows)))[0]
    assert found.shape == (11,)
    assert np.array_equal(found, np.argmax(logp, axis=1))
    assert len(set(found.tolist())) > 1


def test_a_router_costs_more_than_the_bare_base_and_the_base_as_much():
    fit, bare = worlds.fitted("encoder", "token_gate"), worlds.fitted("encoder", "base")
    batch = worlds.batch(worlds.standard("encoder"))
    mine = cost(fit.adapted, fit.arrays, bare.adapted, bare.arrays, batch)
    same = cost(bare.adapted, bare.arrays, bare.adapted, bare.arrays, batch)
    assert mine.memory > 1 and same.memory == 1
    assert mine.time > 0 and same.time > 0
