"""Top-p against its definition, number by number, and what drawing with it gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moejax.models.generate import generate
from moejax.models.sample import Sampling, nucleus, pick
from moejax.types import Batch

ODDS = np.array([0.1, 0.4, 0.05, 0.3, 0.15])
BATCH = Batch(jnp.zeros((50, 1), jnp.int32), jnp.ones((50, 1), bool), jnp.ones((50, 1), bool))


def start(arrays, batch):
    """A toy that always has the same odds."""
    return jnp.broadcast_to(jnp.log(jnp.float32(ODDS)), (50, 5)), None


def step(arrays, token, state):
    return start(arrays, None)


def by_definition(odds, p):
    """The smallest set of most likely tokens whose sum is p or more (Holtzman et al. 2020)."""
    kept, total = set(), 0.0
    for token in sorted(range(len(odds)), key=lambda i: (-odds[i], i)):
        if total >= p:
            break
        kept.add(token)
        total += odds[token]
    return kept


@pytest.mark.parametrize(
    ("p", "kept"),
    [(0.3, {1}), (0.41, {1, 3}), (0.75, {1, 3, 4}), (0.9, {0, 1, 3, 4}), (1.0, {0, 1, 2, 3, 4})],
)
def test_the_nucleus_of_a_worked_example(p, kept):
    found = np.asarray(nucleus(jnp.log(jnp.float32(ODDS))[None], p))[0]
    assert by_definition(ODDS, p) == kept == set(np.flatnonzero(np.isfinite(found)).tolist())
    np.testing.assert_allclose(found[list(kept)], np.log(ODDS[list(kept)]), rtol=1e-6)


def test_the_nucleus_of_random_logits_is_that_of_the_definition():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(200, 30)).astype(np.float32) * 2
    for p in (1e-6, 0.2, 0.7, 0.97):
        found = np.isfinite(np.asarray(nucleus(jnp.asarray(logits), p)))
        odds = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum(axis=1, keepdims=True)
        for row, line in zip(found, odds, strict=True):
            assert set(np.flatnonzero(row).tolist()) == by_definition(line, p)


def test_among_equals_the_lower_id_goes_first():
    assert np.isfinite(np.asarray(nucleus(jnp.zeros((1, 4)), 0.5)))[0].tolist() == [True, True, False, False]


def test_what_is_drawn_has_the_odds_of_the_nucleus():
    logits = jnp.broadcast_to(jnp.log(jnp.float32(ODDS)), (6000, 5))
    sampling = Sampling(jax.random.key(0), 1.0, jnp.float32(0.75))
    share = np.bincount(np.asarray(jax.jit(pick)(logits, jnp.int32(0), sampling)), minlength=5) / 6000
    expected = np.where([0, 1, 0, 1, 1], ODDS, 0)
    np.testing.assert_allclose(share, expected / expected.sum(), atol=0.025)


def test_a_small_top_p_is_greedy():
    drawn = generate(start, step, None, BATCH, max_new=3, key=jax.random.key(1), top_p=0.3)
    assert (drawn.tokens == 1).all()
    free = generate(start, step, None, BATCH, max_new=3, key=jax.random.key(1))
    assert not (free.tokens == 1).all()


@pytest.mark.parametrize("p", [0.0, -0.5, 1.5])
def test_a_senseless_top_p_is_refused(p):
    with pytest.raises(ValueError, match="top_p .* above 0 and at most 1"):
        generate(start, step, None, BATCH, max_new=1, top_p=p)


@pytest.mark.parity
def test_the_nucleus_is_that_of_transformers():
    import torch
    from transformers.generation.logits_process import TopPLogitsWarper

    logits = np.random.default_rng(3).normal(size=(100, 40)).astype(np.float32) * 3
    for p in (0.1, 0.5, 0.9, 0.99):
        theirs = TopPLogitsWarper(p)(None, torch.tensor(logits)).numpy()
        ours = np.asarray(nucleus(jnp.asarray(logits), p))
        np.testing.assert_array_equal(np.isfinite(ours), np.isfinite(theirs))
        np.testing.assert_array_equal(ours, theirs)
