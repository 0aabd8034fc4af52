"""What is trainable is a sub-tree of the arrays, laid over them."""

from collections.abc import Mapping
from typing import Any

from moejax.types import PyTree


def overlay(arrays: PyTree, trainable: PyTree) -> PyTree:
    """`arrays` with the leaves that `trainable` names replaced; records and dicts on the way stay what they are.

    Raises KeyError for a name that `arrays` lacks: a misspelt one would train nothing in silence.
    """
    if not isinstance(trainable, Mapping):
        return trainable
    old: Mapping[str, Any] = arrays._asdict() if hasattr(arrays, "_asdict") else arrays
    for name in trainable:
        if name not in old:
            raise KeyError(f"nothing to train at {name!r}: the arrays have {sorted(old)}")
    new = {name: overlay(old[name], part) for name, part in trainable.items()}
    return arrays._replace(**new) if hasattr(arrays, "_asdict") else {**arrays, **new}
