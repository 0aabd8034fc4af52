"""One module's difference to the base: what a full fine-tune made of it, in numpy float32.

At a linear W_0 + w and b_0 + bias. A norm's gain is a matrix of one row, w [1, d].
"""

from math import sqrt
from typing import NamedTuple

import numpy as np


class Delta(NamedTuple):
    """w [d, f], bias [f]; a module without a bias has one of zeros here."""

    w: np.ndarray
    bias: np.ndarray


def norm(one: Delta) -> float:
    """Frobenius norm of both together."""
    return sqrt(sum(float(np.sum(np.square(leaf, dtype=np.float64))) for leaf in one))
