"""Trees of arrays as one safetensors file: nested dicts by name, records as their fields."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from moejax.types import PyTree, UserError


def flatten(tree: PyTree, prefix: str = "") -> dict[str, np.ndarray]:
    """Leaves by path, joined by "|"; None leaves are left out. Raises ValueError for a name that holds "|"."""
    if hasattr(tree, "_asdict"):
        tree = tree._asdict()
    if not isinstance(tree, Mapping):
        return {} if tree is None else {prefix: np.asarray(tree, order="C")}
    flat: dict[str, np.ndarray] = {}
    for name, part in tree.items():
        if "|" in str(name):
            raise ValueError(f"{name!r} cannot name a leaf: | joins the names of a path")
        flat |= flatten(part, f"{prefix}|{name}" if prefix else str(name))
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts from leaves by path."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *way, last = path.split("|")
        node = tree
        for name in way:
            node = node.setdefault(name, {})
        node[last] = leaf
    return tree


def save(path: Path, tree: PyTree) -> None:
    """Write a tree whole or not at all. Raises OSError when it cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + f".{os.getpid()}.part")
    try:
        save_file(flatten(tree), part)
        os.replace(part, path)
    except SafetensorError as error:  # what its writer makes of a full disk
        raise OSError(f"{path} cannot be written ({error})") from error
    finally:
        part.unlink(missing_ok=True)


def load(path: Path) -> dict[str, Any]:
    """Read a tree as nested dicts of numpy arrays. Raises UserError when the file is no whole safetensors."""
    try:
        return unflatten(load_file(path))
    except Exception as error:
        raise UserError(f"{path}: not a whole safetensors file ({error}); delete it and run again") from error
