"""Qualities of rows: right or not (decoder: how likely), and the log-probability of what is right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import world as worlds

from moejax.adapted import score
from moejax.loss import row_loss
from moejax.train.accuracy import accuracy, qualities


def spelled_out(fit, batch):
    """Row by row from the scores."""
    logp = np.asarray(score(fit.adapted, fit.arrays, jax.tree.map(jnp.asarray, batch))[0])
    if batch.answer is None:
        right = logp[np.arange(len(logp)), batch.targets]
        return np.stack([(logp.argmax(1) == batch.targets).astype(float), right])
    said = np.array(
        [line[mask].mean() if mask.any() else 0.0 for line, mask in zip(logp, batch.answer, strict=True)]
    )
    return np.stack([np.exp(said), said])


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_qualities_are_those_of_the_scores_in_the_order_of_rows(kind):
    fit, rows = worlds.fitted(kind, "uniform"), tiny.rows(tiny.base(kind), 10, seed=40)
    found = qualities(fit.adapted, fit.arrays, rows, 4)
    wanted = spelled_out(fit, tiny.as_batch(rows))
    assert found.shape == (2, 10)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)
    few = qualities(fit.adapted, fit.arrays, rows, 4, most=6)
    assert np.array_equal(few, found[:, :6])
    assert accuracy(fit.adapted, fit.arrays, rows, 4) == pytest.approx(wanted[0].mean(), abs=1e-4)
    loss, _ = row_loss(fit.adapted, fit.arrays, jax.tree.map(jnp.asarray, tiny.as_batch(rows)))
    np.testing.assert_allclose(-loss, wanted[1], rtol=0, atol=1e-4)


def test_accuracy_of_known_answers():
    fit, rows = worlds.fitted("encoder", "uniform"), tiny.rows(tiny.base("encoder"), 8, seed=41)
    best = np.argmax(worlds.scores(fit, jax.tree.map(jnp.asarray, tiny.as_batch(rows))), axis=1).astype(
        np.int32
    )
    for wrong, share in ((0, 1.0), (2, 0.75), (8, 0.0)):
        targets = np.where(np.arange(8) < wrong, (best + 1) % tiny.CHOICES, best).astype(np.int32)
        some = type(rows)(rows.whole._replace(targets=targets), rows.index)
        assert accuracy(fit.adapted, fit.arrays, some, 8) == share
