"""nevergrad itself: its NGOpt, which the release calls, tries the same points in the same order."""

import numpy as np
import pytest

from moejax.train.search import minimise

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]


def quadratic(aim):
    return lambda w: float(np.mean((w - aim) ** 2) + 0.05 * np.mean(np.abs(w)))


@pytest.mark.parametrize(
    ("aim", "budget"),
    [
        (np.linspace(-0.5, 0.5, 20), 40),  # as released
        (np.linspace(-3.0, 3.0, 7), 40),  # beyond the bounds: points come back from them
        (np.array([0.3, -0.7]), 30),
    ],
)
def test_the_same_points_as_nevergrad(aim, budget):
    import nevergrad

    theirs = []

    def noted(w):
        theirs.append(np.array(w))
        return quadratic(aim)(w)

    space = nevergrad.p.Array(init=np.zeros(len(aim)), lower=-1.5, upper=1.5)
    optimiser = nevergrad.optimizers.NGOpt(parametrization=space, budget=budget)
    recommended = optimiser.minimize(noted).value

    ours = []

    def mine(w):
        ours.append(np.array(w))
        return quadratic(aim)(w)

    found = minimise("cobyla", mine, len(aim), 1.5, budget)
    assert len(theirs) == len(ours) == budget
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.best, recommended, rtol=0, atol=1e-6)
