"""What answers are worth: accuracy, balanced accuracy, and paired bootstrap intervals of a difference."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int


def accuracy(found: Int[np.ndarray, "n"], truth: Int[np.ndarray, "n"]) -> float:
    """Share of rows whose best choice is the right one."""
    return float(np.mean(found == truth))


def balanced_accuracy(found: Int[np.ndarray, "n"], truth: Int[np.ndarray, "n"]) -> float:
    """Mean over the labels that occur of the share of their rows that are right (mean recall)."""
    return float(np.mean([np.mean(found[truth == label] == label) for label in np.unique(truth)]))


def paired_interval(
    right: Sequence[Bool[np.ndarray, "_"]],
    other: Sequence[Bool[np.ndarray, "_"]],
    samples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """Difference of mean accuracies over tasks, and its percentile bootstrap interval: (difference, low, high).

    One entry a task, the same rows in both; rows are resampled within each task, in pairs, so what the two
    methods share cancels. Source: Efron and Tibshirani 1993, chapter 13.
    """
    rng = np.random.default_rng(seed)
    differences, middle = np.zeros(samples), 0.0
    for mine, theirs in zip(right, other, strict=True):
        gap = mine.astype(float) - theirs.astype(float)
        draws = rng.integers(0, len(gap), (samples, len(gap)))
        differences += gap[draws].mean(axis=1)
        middle += gap.mean()
    edge = (1 - level) / 2
    low, high = np.quantile(differences / len(right), [edge, 1 - edge])
    return float(middle) / len(right), float(low), float(high)
