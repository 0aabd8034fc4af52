"""Batches of texts of like length: little padding, and few widths, so that few programs are compiled."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int

WIDTHS = 16  # widths are multiples of it


def like_length(lengths: Int[np.ndarray, "n"], size: int) -> Iterator[tuple[Int[np.ndarray, "some"], int]]:
    """The rows of each batch, at most `size`, shortest first, and a width that holds them."""
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), size):
        index = order[start : start + size]
        yield index, -(-int(lengths[index].max()) // WIDTHS) * WIDTHS
