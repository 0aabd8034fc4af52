"""What answers are worth: of choices, of written texts, of likelihoods; paired bootstrap intervals of a difference."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped


def balanced_accuracy(found: Int[np.ndarray, "n"], truth: Int[np.ndarray, "n"]) -> float:
    """Mean over the labels that occur of the share of their rows that are right (mean recall)."""
    return float(np.mean([np.mean(found[truth == label] == label) for label in np.unique(truth)]))


def exact_match(written: Sequence[str], references: Sequence[str]) -> Float[np.ndarray, "n"]:
    """1 where a text is its reference, spaces and line breaks at both ends apart; as lm_eval's `exact_match`."""
    pairs = zip(written, references, strict=True)
    return np.array([float(mine.strip() == wanted.strip()) for mine, wanted in pairs])


def rouge_l(written: Sequence[str], references: Sequence[str]) -> Float[np.ndarray, "n"]:
    """F measure of the longest common subsequence of words: `rougeL` of rouge-score, without stemming (Lin 2004)."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    pairs = zip(written, references, strict=True)
    return np.array([scorer.score(wanted, mine)["rougeL"].fmeasure for mine, wanted in pairs])


def nats(loss: Float[np.ndarray, "n"], parts: Shaped[np.ndarray, "n"]) -> float:
    """sum loss / sum parts, with `parts` the tokens (or bytes) of each reference: log of the perplexity over them.

    As lm_eval's `weighted_perplexity`, whose exponent it is.
    """
    return float(np.sum(loss) / np.sum(parts))


def paired_interval(
    right: Sequence[Shaped[np.ndarray, "_"]],
    other: Sequence[Shaped[np.ndarray, "_"]],
    samples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    parts: Sequence[Shaped[np.ndarray, "_"]] | None = None,
) -> tuple[float, float, float]:
    """Difference of means over tasks of what rows are worth, and its percentile bootstrap interval.

    Gives (difference, low, high). One entry a task, the same rows in both; rows are resampled within each task, in
    pairs, so what the two methods share cancels. With `parts` a task's mean is sum / sum of parts, of the rows drawn.
    Source: Efron and Tibshirani 1993, chapter 13.
    """
    rng = np.random.default_rng(seed)
    differences, middle = np.zeros(samples), 0.0
    for task, (mine, theirs) in enumerate(zip(right, other, strict=True)):
        gap = mine.astype(float) - theirs.astype(float)
        draws = rng.integers(0, len(gap), (samples, len(gap)))
        if parts is None:
            differences += gap[draws].mean(axis=1)
            middle += gap.mean()
        else:
            differences += gap[draws].sum(axis=1) / parts[task][draws].sum(axis=1)
            middle += gap.sum() / parts[task].sum()
    edge = (1 - level) / 2
    low, high = np.quantile(differences / len(right), [edge, 1 - edge])
    return float(middle) / len(right), float(low), float(high)
