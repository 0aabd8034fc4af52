"""A whole checkpoint read as an expert: its difference to the base, tensor by tensor, no two in memory."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from moejax.experts.checkpoint import Stored, canonical, stored
from moejax.experts.delta import Delta
from moejax.experts.expert import SiteKey
from moejax.experts.whole import Leaf, Whole
from moejax.types import UserError


class FoundDelta(NamedTuple):
    """deltas: by Hugging Face module; at: where each stands; rest: by path of the parameter; other: not the base's."""

    deltas: dict[str, Delta]
    at: dict[str, SiteKey]
    rest: dict[str, np.ndarray]
    other: tuple[str, ...] = ()


def read_delta(folder: Path, whole: Whole) -> FoundDelta:
    """The modules that differ from the base, and the parameters outside the layers that do.

    Raises UserError for another architecture, a tensor that is missing, of another shape or not finite, and for a
    checkpoint that differs from the base nowhere.
    """
    whole.check(folder)
    files = stored(folder)

    def change(name: str, leaf: Leaf) -> np.ndarray | None:
        return difference(tensor_of(folder, name, leaf, files), name, leaf, whole)

    found = assembled(change, whole)
    if not found.deltas and not found.rest:
        raise UserError(f"{folder}: no tensor differs from the base: it does nothing")
    known = {canonical(name) for name in whole.leaves}
    return found._replace(other=tuple(files[name].name for name in sorted(files.keys() - known)))


def assembled(change: Callable[[str, Leaf], np.ndarray | None], whole: Whole) -> FoundDelta:
    """What differs, from the difference of each tensor (None: it does not)."""
    parts: dict[str, dict[str, np.ndarray]] = {}
    at: dict[str, SiteKey] = {}
    rest: dict[str, np.ndarray] = {}
    for name, leaf in whole.leaves.items():
        one = change(name, leaf)
        if one is not None and leaf.layer is None:
            rest[leaf.path] = one
        elif one is not None and leaf.layer is not None:
            module = name.rpartition(".")[0]
            at[module] = leaf.module, leaf.layer
            parts.setdefault(module, {})["bias" if leaf.path.endswith("/bias") else "w"] = one
    deltas = {module: _delta(found, module, whole) for module, found in sorted(parts.items())}
    return FoundDelta(deltas, at, rest)


def difference(values: np.ndarray, name: str, leaf: Leaf, whole: Whole) -> np.ndarray | None:
    """What a tensor adds to the base's, as the parameter lies; None where it is the same in the file's own type."""
    before = whole.tensor(name)
    if np.array_equal(values, before.astype(values.dtype)):
        return None
    change = values.astype(np.float32) - before
    return np.ascontiguousarray(change.T if leaf.turned else change)


def tensor_of(folder: Path, name: str, leaf: Leaf, files: Mapping[str, Stored]) -> np.ndarray:
    """A checkpoint's own tensor of this name. Raises UserError when it is missing, misshapen or not finite."""
    tensor = files.get(canonical(name) or "")
    if tensor is None:
        raise UserError(f"{folder}: the weights hold no {name}, which the base has")
    if tensor.shape != leaf.shape:
        raise UserError(
            f"{tensor.file}: {tensor.name} is {list(tensor.shape)}, but the base makes it {list(leaf.shape)}"
        )
    return tensor.read()


def _delta(found: Mapping[str, np.ndarray], module: str, whole: Whole) -> Delta:
    """Both leaves, zeros for one that does not differ; a gain [d] becomes a matrix of one row."""
    leaf = whole.leaves[f"{module}.weight"]
    shape = leaf.shape[::-1] if leaf.turned else leaf.shape if len(leaf.shape) == 2 else (1, *leaf.shape)
    w = found["w"].reshape(shape) if "w" in found else np.zeros(shape, np.float32)
    return Delta(w, found["bias"] if "bias" in found else np.zeros(shape[1], np.float32))
