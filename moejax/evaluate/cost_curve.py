"""What a choice between a strong and a weak member is worth: accuracy over the share of requests the strong one gets.

c is the realised share of strong calls, r the accuracy, PGR = (r - r_weak) / (r_strong - r_weak), the share of the gap
that is recovered. APGR is the area under PGR over c, by trapezoids between the realised shares, both ends among them;
a random choice has .5. CPT(x) is the least c with PGR >= x, on straight lines between the points.

Source: Ong et al. 2024 (2406.18665), section 3, and its released code, whose thresholds and areas these are; CPT there
reads the accuracies as rising, here the first crossing counts.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

BINS, LEVELS = 10, (0.2, 0.5, 0.8)


class Curve(NamedTuple):
    """Points by rising share of strong calls: the share, and the share of right answers."""

    share: Float[np.ndarray, "p"]
    accuracy: Float[np.ndarray, "p"]


def curve(
    wants: Float[np.ndarray, "n"],
    strong: Bool[np.ndarray, "n"],
    weak: Bool[np.ndarray, "n"],
    bins: int = BINS,
) -> Curve:
    """Points at the thresholds between bins of equally many rows: from no row for the strong member to all.

    strong, weak: whether each member answers a row rightly. Points with one share are one.
    """
    edges = np.quantile(wants, np.linspace(0, 1, bins + 1))
    called = np.stack([wants > edges[-1], *(wants >= edge for edge in edges[:-1])])
    _, first = np.unique(called.sum(axis=1), return_index=True)
    called = called[first]
    return Curve(called.mean(axis=1), np.where(called, strong[None], weak[None]).mean(axis=1))


def recovered(found: Curve) -> Float[np.ndarray, "p"] | None:
    """PGR of each point; None where the strong member is not better: there is no gap to recover."""
    gap = found.accuracy[-1] - found.accuracy[0]
    return (found.accuracy - found.accuracy[0]) / gap if gap > 0 else None


def area(found: Curve) -> float | None:
    """APGR; None where PGR is undefined."""
    pgr = recovered(found)
    return None if pgr is None else float(np.sum(np.diff(found.share) * (pgr[1:] + pgr[:-1]) / 2))


def least_share(found: Curve, level: float) -> float | None:
    """CPT(level), a share of calls; None where PGR is undefined."""
    pgr = recovered(found)
    if pgr is None:
        return None
    at = int(np.argmax(pgr >= level))  # the last is 1, so there is one
    if at == 0:
        return float(found.share[0])
    (x0, x1), (y0, y1) = found.share[at - 1 : at + 1], pgr[at - 1 : at + 1]
    return float(x0 + (x1 - x0) * (level - y0) / (y1 - y0))


def summary(found: Curve, prices: Sequence[float]) -> dict[str, Any]:
    """The plain record of a curve; prices: of the strong and of the weak member, for the mean cost of a request.

    `undefined` says why there is no PGR, where there is none.
    """
    strong, weak = prices
    pgr, end = recovered(found), float(found.accuracy[-1] - found.accuracy[0])
    why = (
        None
        if pgr is not None
        else "the strong member is " + ("no better here" if end == 0 else "worse here")
    )
    return {
        "share": found.share.tolist(),
        "cost": (weak + found.share * (strong - weak)).tolist(),
        "accuracy": found.accuracy.tolist(),
        "recovered": None if pgr is None else pgr.tolist(),
        "apgr": area(found),
        "cpt": {f"{100 * level:.0f}": least_share(found, level) for level in LEVELS},
        "undefined": why,
    }
