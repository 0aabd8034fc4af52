"""A model's folder as Hugging Face lays it out: its config, and the tensors of one file or of several shards."""

import hashlib
import json
import re
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from jaxtyping import Shaped

from moejax.experts.links import inside
from moejax.types import UserError

MODEL_CONFIG, MODEL, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
FLOATS = ("F64", "F32", "F16", "BF16")
PREFIXES = ("bert.", "roberta.", "model.", "transformer.")
BUFFERS = ("position_ids", "inv_freq", "masked_bias")
TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
         "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?"}  # fmt: skip
PIECE = 2**24  # bytes that are read at once
OLD_LEAVES = {"gamma": "weight", "beta": "bias"}


def canonical(name: str) -> str | None:
    """A tensor's Hugging Face name without the prefix of a wrapping class; None for buffers."""
    head, _, leaf = name.rpartition(".")
    if leaf in BUFFERS:
        return None
    name = f"{head}.{OLD_LEAVES.get(leaf, leaf)}" if head else leaf
    return next((name.removeprefix(p) for p in PREFIXES if name.startswith(p)), name)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises UserError when the file is absent, is not JSON, or holds something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: give the folder of a Hugging Face model") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} holds a {type(found).__name__}: expected a JSON object")
    return found


class Stored(NamedTuple):
    """One tensor in a file, not read yet: dtype as safetensors calls it, bytes begin .. end of the file."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    def pieces(self) -> Iterator[tuple[slice, Shaped[np.ndarray, "..."]]]:
        """Its values, some rows at a time, whatever they are; of a type that numpy lacks, its bytes at once."""
        known = self.dtype == "BF16" or self.dtype in TYPES
        dtype = np.dtype(ml_dtypes.bfloat16 if self.dtype == "BF16" else TYPES.get(self.dtype, "u1"))
        shape = self.shape if known else (self.end - self.begin,)
        rows, row = (shape[0], shape[1:]) if shape else (1, ())
        step = max(1, PIECE // max(1, prod(row) * dtype.itemsize)) if known else max(1, rows)
        with self.file.open("rb") as file:
            file.seek(self.begin)
            for start in range(0, rows, step):
                count = min(step, rows - start)
                values = np.fromfile(file, dtype, count * prod(row))
                if values.size != count * prod(row):
                    raise UserError(f"{self.file} is truncated within {self.name}: download it again")
                yield slice(start, start + count), values.reshape((count, *row) if shape else ())

    def raw(self) -> np.ndarray:
        """Its values, whatever they are."""
        pieces = [values for _, values in self.pieces()]
        if not pieces:
            return np.zeros(self.shape, TYPES.get(self.dtype, "<f4"))
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def checked(self) -> Iterator[tuple[slice, Shaped[np.ndarray, "..."]]]:
        """Its `pieces`. Raises UserError unless they are finite floating-point numbers, in float32 too."""
        if self.dtype not in FLOATS:
            raise UserError(f"{self.file}: {self.name} is of type {self.dtype}; expected {', '.join(FLOATS)}")
        for rows, values in self.pieces():
            with np.errstate(over="ignore"):
                finite = np.isfinite(values.astype(np.float32) if self.dtype == "F64" else values).all()
            if not finite:
                raise UserError(f"{self.file}: {self.name} holds a NaN or an infinity: the file is damaged")
            yield rows, values

    def read(self) -> np.ndarray:
        """Its values. Raises UserError unless they are finite floating-point numbers."""
        pieces = [values for _, values in self.checked()]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces) if pieces else self.raw()


def stored(folder: Path) -> dict[str, Stored]:
    """All parameters of a folder, by canonical Hugging Face name, from one file or the shards of its index.

    Raises UserError for pickles, a missing or truncated file, a shard outside the folder, a name met twice.
    """
    found: dict[str, Stored] = {}
    for file in files(folder):
        for tensor in tensors(file):
            key = canonical(tensor.name)
            if key is None:
                continue
            if key in found:
                raise UserError(f"{file}: {tensor.name} was met before as {found[key].name}: keep one")
            found[key] = tensor
    return found


def files(folder: Path) -> list[Path]:
    """The one file, or the shards, that hold a folder's parameters. Raises UserError as `stored` does."""
    index = folder / INDEX
    if (folder / MODEL).exists():
        return [inside(folder / MODEL)]
    if not index.exists():
        pickles = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLES)
        if pickles:
            raise UserError(
                f"{folder} holds only pickled weights ({pickles[0]}), which can run code: "
                "convert them to model.safetensors"
            )
        raise UserError(
            f"{folder} holds no weights: expected model.safetensors, or {index.name} and its shards"
        )
    shards = read_json(inside(index)).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(s, str) for s in shards.values()) or not shards:
        raise UserError(f"{index}: weight_map must map each tensor to its file")
    for name in set(shards.values()):
        if not re.fullmatch(r"[\w-][\w.-]*\.safetensors", name):
            raise UserError(f"{index}: {name!r} is no safetensors file of this folder")
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is listed in {index.name} but missing: download this shard")
    return [inside(folder / name) for name in sorted(set(shards.values()))]


def tensors(file: Path) -> list[Stored]:
    """The tensors of a safetensors file. Raises UserError when its header does not describe it."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np"):  # reads the header and holds it against the file's size
            pass
        with file.open("rb") as opened:
            size = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(size))
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} is truncated or no safetensors file ({error}): download it again") from error
    header.pop("__metadata__", None)
    found = [
        Stored(file, name, one["dtype"], tuple(one["shape"]), *(8 + size + at for at in one["data_offsets"]))
        for name, one in header.items()
    ]
    return sorted(found, key=lambda tensor: tensor.begin)


def checkpoint_hash(folder: Path) -> str:
    """A name for a whole checkpoint, by the name, type, shape and bytes of its parameters; no base is needed.

    It tells equal content within the commands on a pool folder, as `modules_hash` does for adapters.
    """
    digest = hashlib.sha256(b"moejax checkpoint 1")
    for name, tensor in sorted(stored(folder).items()):
        values = np.ascontiguousarray(tensor.read() if tensor.dtype in FLOATS else tensor.raw())
        digest.update(f"{name} {values.dtype} {list(values.shape)} ".encode())
        digest.update(values.tobytes())
    return "modules:" + digest.hexdigest()
