"""Search without gradients: the trace of the release's optimiser, its bounds, and the alternatives."""

import numpy as np
import pytest

from moejax.train.search import minimise, reflected

AIM = np.linspace(-0.5, 0.5, 20)


def penalised(w):
    """The card's function: (w - t)^2 + 0.05 |w|, averaged."""
    return float(np.mean((w - AIM) ** 2) + 0.05 * np.mean(np.abs(w)))


def traced(search, size=20, budget=40, seed=0, score=penalised, bound=1.5):
    """What was found, and every vector that was tried."""
    seen = []

    def noted(w):
        seen.append(np.array(w))
        return score(w)

    return minimise(search, noted, size, bound, budget, seed), np.array(seen)


def test_the_trace_of_the_released_optimiser():
    found, seen = traced("cobyla")
    assert len(found.values) == len(seen) == 40
    assert found.values[0] == pytest.approx(0.0921, abs=5e-5)
    assert found.values.min() == pytest.approx(0.0327, abs=5e-5) and found.values.argmin() == 22
    assert np.array_equal(found.best, seen[22])


def test_half_the_budget_goes_to_one_coordinate_after_another():
    found, seen = traced("cobyla")
    assert not seen[0].any()
    kept, least = np.zeros(20), found.values[0]
    for coordinate, (w, value) in enumerate(zip(seen[1:21], found.values[1:21], strict=True)):
        step = kept.copy()
        step[coordinate] = 0.5
        np.testing.assert_allclose(w, step, rtol=0, atol=1e-12)
        if value < least:
            kept, least = step, value
    assert kept[15:].all() and not kept[:10].any()


def test_it_goes_on_from_the_best_point_where_it_ends_before_the_budget():
    found, seen = traced("cobyla", 2, 200, score=lambda w: float(np.sum((w - [0.3, -0.7]) ** 2)))
    assert len(seen) == 200
    np.testing.assert_allclose(found.best, [0.3, -0.7], rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("x", "back"), [(1.4, 1.4), (1.5, 1.5), (2.0, 1.0), (-1.75, -1.25), (4.0, -1.0), (9.0, -1.5), (-9.0, 1.5)]
)
def test_what_leaves_the_box_comes_back_once(x, back):
    assert reflected(np.array([x]), 1.5) == pytest.approx([back])


@pytest.mark.parametrize("search", ["cobyla", "cma", "random"])
def test_every_search_stays_in_the_box_and_keeps_to_the_budget(search):
    found, seen = traced(search, 5, 30, score=lambda w: float(np.sum((w - 3.0) ** 2)), bound=0.75)
    assert seen.shape == (30, 5) and np.abs(seen).max() <= 0.75
    values = np.sum((seen - 3.0) ** 2, axis=1)
    np.testing.assert_allclose(found.values, values)
    assert np.array_equal(found.best, seen[values.argmin()]) and found.values.min() < found.values.mean()


@pytest.mark.parametrize(("search", "follows"), [("cobyla", False), ("cma", True), ("random", True)])
def test_the_seed_matters_to_random_searches_alone(search, follows):
    one, again, other = (traced(search, seed=seed)[1] for seed in (0, 0, 1))
    assert np.array_equal(one, again) and np.array_equal(one, other) != follows


def test_covariance_adaptation_learns():
    found, _ = traced("cma", 4, 400, score=lambda w: float(np.sum((w - [0.3, -0.7, 1.2, 0.0]) ** 2)))
    np.testing.assert_allclose(found.best, [0.3, -0.7, 1.2, 0.0], rtol=0, atol=1e-2)


def test_the_first_of_equals_is_the_best():
    found, seen = traced("random", 3, 8, score=lambda w: 1.0)
    assert np.array_equal(found.best, seen[0])
