"""Search without gradients, over vectors in a box around zero: COBYLA as nevergrad runs it, CMA-ES, random draws."""

import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize

Search = Literal["cobyla", "cma", "random"]
Score = Callable[[Float[np.ndarray, "n"]], float]
STEPS = 6  # the first step is the box's width over this


class _Spent(Exception):
    """The budget is used up."""


class Found(NamedTuple):
    """The best vector that was tried (the first of equals), and the scores of all, in their order."""

    best: Float[np.ndarray, "n"]
    values: Float[np.ndarray, "budget"]


def minimise(search: Search, score: Score, size: int, bound: float, budget: int, seed: int = 0) -> Found:
    """Try `budget` vectors of [-bound, bound]^size; the seed matters to `cma` and `random` alone."""
    tried: list[tuple[np.ndarray, float]] = []

    def value(x: Float[np.ndarray, "n"]) -> float:
        if len(tried) == budget:
            raise _Spent
        tried.append((x, float(score(x))))
        return tried[-1][1]

    with suppress(_Spent):
        {"cobyla": _cobyla, "cma": _cma, "random": _random}[search](value, size, bound, budget, seed)
    best = min(tried, key=lambda one: one[1])[0]
    return Found(best, np.array([found for _, found in tried]))


def reflected(x: Float[np.ndarray, "n"], bound: float) -> Float[np.ndarray, "n"]:
    """What leaves the box comes back once, as from a mirror; what then leaves it on the other side is cut.

    Source: nevergrad's `bouncing` bounds.
    """
    return np.where(np.abs(x) > bound, np.clip(np.sign(x) * 2 * bound - x, -bound, bound), x)


def _cobyla(value: Score, size: int, bound: float, budget: int, seed: int) -> None:
    """From zero, radius 1 in units of the first step; begun anew at the best point where it ends before the budget.

    Source: nevergrad 1.0.12, NGOpt on a bounded, noise-free, sequential problem with budget < 200 size.
    """
    unit, start, least, left = 2 * bound / STEPS, np.zeros(size), np.inf, budget
    while True:
        found: Any = minimize(
            lambda z: value(reflected(z * unit, bound)),
            start,
            method="COBYLA",
            tol=1e-6,
            options={"maxiter": left},
        )
        left = max(left - found.nfev, size + 2)  # the least that it takes; the budget ends it all the same
        if found.fun < least:
            start, least = found.x, found.fun


def _cma(value: Score, size: int, bound: float, budget: int, seed: int) -> None:
    """From zero, by populations of 4 + 3 log(size)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it misses matplotlib, which nothing here needs
        import cma

    options = {"bounds": [-bound, bound], "seed": seed + 1, "verbose": -9}  # 0 would be the clock
    strategy = cma.CMAEvolutionStrategy(np.zeros(size), 2 * bound / STEPS, options)
    while True:
        asked = strategy.ask()
        strategy.tell(asked, [value(np.asarray(one)) for one in asked])


def _random(value: Score, size: int, bound: float, budget: int, seed: int) -> None:
    """Uniform draws."""
    for x in np.random.default_rng(seed).uniform(-bound, bound, (budget, size)):
        value(x)
