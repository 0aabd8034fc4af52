"""Accuracies by hand, and intervals that cover what they should."""

import numpy as np
import pytest

from moejax.evaluate.metrics import accuracy, balanced_accuracy, paired_interval


def test_accuracy_is_the_share_that_is_right():
    assert accuracy(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2])) == 0.75


def test_balanced_accuracy_counts_each_label_once():
    truth = np.array([0, 0, 0, 1])
    assert balanced_accuracy(np.array([0, 0, 0, 0]), truth) == 0.5  # the majority label, always
    assert balanced_accuracy(np.array([0, 0, 1, 1]), truth) == pytest.approx((2 / 3 + 1) / 2)
    assert (
        balanced_accuracy(np.array([5, 5, 5, 1]), truth) == 0.5
    )  # a label that never occurs counts for nothing


def test_a_method_does_not_differ_from_itself():
    right = [np.array([True, False, True]), np.array([False])]
    assert paired_interval(right, right, samples=50) == (0.0, 0.0, 0.0)


def test_the_difference_is_a_mean_over_tasks_not_over_rows():
    right = [np.ones(100, bool), np.zeros(2, bool)]
    other = [np.zeros(100, bool), np.ones(2, bool)]
    assert paired_interval(right, other, samples=50) == (0.0, 0.0, 0.0)  # +1 and -1, whatever is resampled


def test_the_interval_is_that_of_the_normal_approximation_and_pairs_rows():
    rng = np.random.default_rng(0)
    other = rng.random(400) < 0.5
    right = other ^ (rng.random(400) < 0.1)  # agrees on nine rows of ten
    gap = right.astype(float) - other.astype(float)
    middle, low, high = paired_interval([right], [other], samples=4000, seed=1)
    assert middle == pytest.approx(gap.mean())
    half = 1.96 * gap.std() / np.sqrt(400)
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)
    unpaired = 1.96 * np.sqrt(right.var() / 400 + other.var() / 400)
    assert (high - low) / 2 < 0.6 * unpaired
    narrow = paired_interval([right], [other], samples=4000, seed=1, level=0.5)
    assert narrow[2] - narrow[1] < 0.5 * (high - low)


def test_the_interval_follows_its_seed():
    rng = np.random.default_rng(2)
    right, other = [rng.random(30) < 0.6], [rng.random(30) < 0.5]
    assert paired_interval(right, other, seed=3) == paired_interval(right, other, seed=3)
    assert paired_interval(right, other, samples=37, seed=3) != paired_interval(
        right, other, samples=37, seed=4
    )


def test_methods_must_have_answered_the_same_tasks():
    with pytest.raises(ValueError, match="shorter"):
        paired_interval([np.array([True])], [])
