"""Cost-quality curves: the card's worked numbers, the released code's areas, and what is undefined."""

import numpy as np
import pytest

from moejax.evaluate.cost_curve import LEVELS, Curve, area, curve, least_share, recovered, summary

WORKED = Curve(np.array([0, 0.2, 0.5, 0.8, 1]), np.array([0.60, 0.66, 0.74, 0.79, 0.80]))


def some(n=400, seed=0):
    rng = np.random.default_rng(seed)
    strong, weak = rng.random(n) < 0.8, rng.random(n) < 0.5
    return rng.random(n) + 0.5 * (strong & ~weak), strong, weak


# check 6
def test_the_worked_curve():
    assert area(WORKED) == pytest.approx(0.6225)
    found = [100 * least_share(WORKED, level) for level in LEVELS]
    np.testing.assert_allclose(found, [13.333, 35, 62], atol=5e-4)


# check 7
@pytest.mark.parametrize(("end", "why"), [(0.6, "no better here"), (0.5, "worse here")])
def test_without_a_gap_there_is_nothing_to_recover_and_it_says_so(end, why):
    flat = Curve(np.array([0.0, 0.5, 1.0]), np.array([0.6, 0.7, end]))
    assert recovered(flat) is None and area(flat) is None and least_share(flat, 0.5) is None
    found = summary(flat, (2.0, 1.0))
    assert found["undefined"] == f"the strong member is {why}" and found["apgr"] is None
    assert found["cpt"] == {"20": None, "50": None, "80": None}


def test_points_areas_and_thresholds_are_those_of_the_released_code():
    wants, strong, weak = some()
    found = curve(wants, strong, weak)
    edges = np.quantile(wants, np.linspace(0, 1, 11))  # what pandas' qcut gives as bins
    shares, accuracies = [], []
    for i, edge in enumerate(edges):
        called = wants >= edge if i != len(edges) - 1 else wants > edge
        shares.append(called.mean())
        accuracies.append(np.where(called, strong, weak).mean())
    order = np.argsort(shares)
    shares, accuracies = np.array(shares)[order], np.array(accuracies)[order]
    np.testing.assert_allclose(found.share, shares)
    np.testing.assert_allclose(found.accuracy, accuracies)
    low, high = weak.mean(), strong.mean()
    whole = np.trapezoid(accuracies, shares)
    assert area(found) == pytest.approx((whole - low) / (high - low)) and area(found) > 0.55
    rising = Curve(found.share, np.maximum.accumulate(found.accuracy))
    if (rising.accuracy == found.accuracy).all():
        for level in LEVELS:
            wanted = np.interp(low + level * (high - low), accuracies, shares)
            assert least_share(found, level) == pytest.approx(wanted)


def test_both_ends_are_there_and_shares_rise():
    wants, strong, weak = some()
    for given in (wants, np.round(wants, 1), np.zeros_like(wants)):  # with ties, and with nothing but ties
        found = curve(given, strong, weak)
        assert found.share[0] == 0 and found.share[-1] == 1 and (np.diff(found.share) > 0).all()
        assert found.accuracy[0] == weak.mean() and found.accuracy[-1] == strong.mean()
    assert len(found.share) == 2 and area(found) == pytest.approx(0.5)


def test_a_random_choice_recovers_half_and_the_best_one_more():
    _, strong, weak = some(20000)
    random = np.random.default_rng(9).random(20000)
    assert area(curve(random, strong, weak)) == pytest.approx(0.5, abs=0.02)
    best = (strong & ~weak).astype(float)  # its two values make two thresholds: 0, those it helps, and all
    assert area(curve(best, strong, weak)) > 0.8


def test_the_first_crossing_counts():
    wavy = Curve(np.array([0.0, 0.25, 0.5, 1.0]), np.array([0.0, 0.6, 0.3, 1.0]))
    assert least_share(wavy, 0.5) == pytest.approx(0.25 * 0.5 / 0.6)
    assert least_share(wavy, 0.8) == pytest.approx(0.5 + 0.5 * 0.5 / 0.7)


def test_the_cost_lies_between_the_prices():
    found = summary(WORKED, (3.0, 1.0))
    assert found["cost"] == pytest.approx([1.0, 1.4, 2.0, 2.6, 3.0]) and found["undefined"] is None
    assert found["recovered"] == pytest.approx([0, 0.3, 0.7, 0.95, 1])
