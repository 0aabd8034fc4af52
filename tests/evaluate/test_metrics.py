"""Accuracies by hand, and intervals that cover what they should."""

import numpy as np
import pytest

from moejax.evaluate.metrics import balanced_accuracy, exact_match, nats, paired_interval, rouge_l

WRITTEN = ("seven zero", " the cat sat on the mat.\n", "The Cat", "", "a b c d")
WANTED = ("seven zero", "the cat sat on the mat.", "the cat", "x", "a c e d")


def test_a_written_text_is_right_when_it_is_the_reference_but_for_space_at_its_ends():
    assert exact_match(WRITTEN, WANTED).tolist() == [1, 1, 0, 0, 0]


def test_rouge_l_is_the_share_of_the_longest_common_subsequence():
    assert rouge_l(WRITTEN, WANTED).tolist() == pytest.approx([1, 1, 1, 0, 0.75])  # lower case, words alone


def test_a_perplexity_counts_all_tokens_of_a_task_together():
    loss, tokens = np.array([1.0, 5.0]), np.array([1, 2])
    assert nats(loss, tokens) == pytest.approx(2.0)  # not the mean of 1 and 2.5


def test_the_interval_of_a_ratio_is_that_of_the_rows_drawn():
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 9, 300)
    other = 2.0 * tokens
    mine = other - 0.5 * tokens  # half a nat less at every token, whatever is drawn
    found = paired_interval([mine], [other], samples=50, parts=[tokens])
    assert found == pytest.approx((-0.5, -0.5, -0.5))
    noisy = mine + rng.normal(size=300)
    middle, low, high = paired_interval([noisy], [other], samples=2000, parts=[tokens])
    assert middle == pytest.approx((noisy - other).sum() / tokens.sum())
    assert (high - low) / 2 == pytest.approx(1.96 / np.sqrt(300) / tokens.mean(), rel=0.15)


@pytest.mark.parity
def test_they_are_those_of_lm_eval():
    from lm_eval.api import metrics

    said = metrics.exact_match_hf_evaluate([t.strip() for t in WRITTEN], [t.strip() for t in WANTED])
    assert np.mean(exact_match(WRITTEN, WANTED)) == pytest.approx(float(said["exact_match"]))
    loss, size = np.array([1.5, 7.0, 2.25]), np.array([3, 11, 4])
    pairs = list(zip((-loss).tolist(), size.tolist(), strict=True))
    assert np.exp(nats(loss, size)) == pytest.approx(metrics.weighted_perplexity(pairs))


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
