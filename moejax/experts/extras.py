"""What an expert carries beside its weights: gates, means, Fisher diagonals, samples. Read on demand.

In memory, by name: a dict path -> array [s, ...] along the bank's slots, one array for the whole expert, or
(the name "samples") a list of JSON objects. On disk a tensor is named `EXTRA:MODULE` or `EXTRA`, by Hugging
Face module names, so that a file says nothing of how a pool is stacked.
"""

import json
import re
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from moejax.experts import links
from moejax.experts.expert import SiteKey
from moejax.experts.folder import EXTRAS, SAMPLES, closest, open_tensors, write_bytes, write_tensors
from moejax.types import UserError

Slots = Mapping[str, np.ndarray]  # path -> slot [l]


def names(folder: Path) -> frozenset[str]:
    """The extras that a folder holds; only headers are read."""
    found = {"samples"} if (folder / SAMPLES).is_file() else set()
    if (folder / EXTRAS).is_file():
        with open_tensors(folder / EXTRAS) as tensors:
            found |= {key.partition(":")[0] for key in tensors.names}
    return frozenset(found)


def read(folder: Path, name: str, sites: Mapping[str, SiteKey], slots: Slots) -> Any:
    """One extra, or None when the folder lacks it. Raises UserError on damage or an unknown module."""
    if name not in names(folder):
        return None
    if name == "samples":
        return _read_samples(folder / SAMPLES)
    with open_tensors(folder / EXTRAS) as tensors:
        if name in tensors.names:
            return tensors.read(name)
        value: dict[str, np.ndarray] = {}
        for key in tensors.names:
            extra, _, module = key.partition(":")
            if extra != name:
                continue
            if module not in sites:
                near = closest(module, sites)
                raise UserError(
                    f"{tensors.path}: tensor {key!r} is for a module that the base does not have{near}"
                )
            path, layer = sites[module]
            if path in slots and slots[path][layer] >= 0:
                _place(value, path, slots[path], layer, tensors.read(key), f"{tensors.path}: tensor {key!r}")
        return value


def _place(value: dict, path: str, slot: np.ndarray, layer: int, array: np.ndarray, what: str) -> None:
    whole = value.setdefault(path, np.zeros((int(slot.max()) + 1, *array.shape), np.float32))
    if whole.shape[1:] != array.shape:
        raise UserError(f"{what} has shape {list(array.shape)}, another layer's {list(whole.shape[1:])}")
    whole[slot[layer]] = array


def write(
    folder: Path,
    extras: Mapping[str, Any],
    sites: Mapping[str, SiteKey],
    slots: Slots,
    own: Container[SiteKey],
) -> None:
    """Add or replace extras of an expert's folder, each file in one step; `own`: the sites that it adapts."""
    tensors: dict[str, np.ndarray] = {}
    if (folder / EXTRAS).is_file():
        with open_tensors(folder / EXTRAS) as old:
            tensors = {key: old.read(key) for key in old.names if key.partition(":")[0] not in extras}
    for name, value in extras.items():
        if not re.fullmatch(r"[\w.@/+-]+", name):
            raise UserError(f"{name!r} cannot name an extra: use letters, digits and . @ / + - _")
        if name == "samples":
            _write_samples(folder / SAMPLES, value)
        elif isinstance(value, Mapping):
            for module, (path, layer) in sites.items():
                if path in value and (path, layer) in own:
                    tensors[f"{name}:{module}"] = np.asarray(value[path][slots[path][layer]])
        else:
            tensors[name] = np.asarray(value)
    if tensors:
        write_tensors(folder / EXTRAS, tensors)


def _read_samples(path: Path) -> list[dict[str, Any]]:
    links.check(path)
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            row = json.loads(line.decode())
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number}: not valid JSON ({error})") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: expected a JSON object, found {type(row).__name__}")
        rows.append(row)
    return rows


def _write_samples(path: Path, rows: Any) -> None:
    write_bytes(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
