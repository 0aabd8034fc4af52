"""What experts need to know of a base as a whole model: its tensors by Hugging Face name, and its config."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Leaf(NamedTuple):
    """Where a Hugging Face tensor lies in the base's parameters, `layers/mlp/up/kernel`; layer None: not in a layer.

    shape: of the tensor in its file; turned: whether it is the transpose of the parameter.
    """

    path: str
    layer: int | None
    shape: tuple[int, ...]
    turned: bool

    @property
    def module(self) -> str:
        """The path without the parameter's own name."""
        return self.path.rpartition("/")[0]


class Whole(NamedTuple):
    """leaves: Hugging Face name -> where it lies; tensor: the base's own, float32, as a file has it.

    config: config.json of the base. check: raises UserError unless a folder's config.json is of this architecture.
    """

    leaves: Mapping[str, Leaf]
    tensor: Callable[[str], np.ndarray]
    config: Callable[[], dict[str, Any]]
    check: Callable[[Path], None]
