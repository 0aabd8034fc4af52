"""One linear and its experts, drawn: what ours and every peer are given."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

SCALE = 2.0  # of every expert
FLOAT = 4  # bytes of a number


@dataclass(frozen=True)
class Size:
    """n tokens, width d (in and out), e experts of rank r, k chosen."""

    n: int = 512
    d: int = 1024
    e: int = 8
    k: int = 2
    r: int = 16

    def __str__(self) -> str:
        return f"n={self.n} d={self.d} e={self.e} k={self.k} r={self.r}"


class Case(NamedTuple):
    """Inputs, the base's weight, the experts' factors, choices with their weights, and the gradient of the output."""

    size: Size
    x: Float[np.ndarray, "n d"]
    w: Float[np.ndarray, "d f"]
    a: Float[np.ndarray, "e r d"]
    b: Float[np.ndarray, "e r f"]
    values: Float[np.ndarray, "n k"]
    index: Int[np.ndarray, "n k"]
    aim: Float[np.ndarray, "n f"]

    @property
    def dense(self) -> Float[np.ndarray, "n e"]:
        """The weights spelled out over all experts, zero where not chosen."""
        found = np.zeros((self.size.n, self.size.e), np.float32)
        np.put_along_axis(found, self.index, self.values, axis=1)
        return found


def draw(size: Size, seed: int = 0) -> Case:
    """A case in which every token chooses k different experts at random, all equally often: no expert is free."""
    rng, (n, d, e, k, r) = np.random.default_rng(seed), (size.n, size.d, size.e, size.k, size.r)
    normal = lambda *shape: rng.standard_normal(shape, np.float32)  # noqa: E731
    index = np.argsort(rng.random((n, e)), axis=1)[:, :k].astype(np.int32)
    values = rng.dirichlet(np.ones(k), n).astype(np.float32)
    w, a, b = normal(d, d) / np.float32(d**0.5), normal(e, r, d) / np.float32(d**0.5), normal(e, r, d) / r
    return Case(size, normal(n, d), w, a, b, values, index, normal(n, d))


def directions(a: Float[np.ndarray, "e r d"], b: Float[np.ndarray, "e r f"]) -> Float[np.ndarray, "e d"]:
    """The prototypes of all experts, exact and apart from the library's: with A A^T = L L^T and the largest
    eigenvalue's q of L^T (B B^T) L, the direction A^T L^-T q of length 1.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    low = np.linalg.cholesky(a @ a.swapaxes(1, 2))
    q = np.linalg.eigh(low.swapaxes(1, 2) @ (b @ b.swapaxes(1, 2)) @ low)[1][:, :, -1:]
    found = np.linalg.solve(low.swapaxes(1, 2), q).swapaxes(1, 2) @ a
    return (found / np.linalg.norm(found, axis=2, keepdims=True))[:, 0].astype(np.float32)
