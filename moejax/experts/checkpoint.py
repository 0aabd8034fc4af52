"""A model's folder as Hugging Face lays it out: its config, and the tensors of one file or of several shards."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from moejax.types import UserError

MODEL_CONFIG, MODEL, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
FLOATS = ("F64", "F32", "F16", "BF16")
PREFIXES = ("bert.", "model.")
BUFFERS = ("position_ids", "inv_freq")
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
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} holds a {type(found).__name__}: expected a JSON object")
    return found


class Stored(NamedTuple):
    """One tensor in a file, not read yet."""

    file: Path
    name: str
    handle: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape, from the file's header."""
        return tuple(self.handle.get_slice(self.name).get_shape())

    @property
    def dtype(self) -> str:
        """The type of its numbers, as safetensors calls it."""
        return self.handle.get_slice(self.name).get_dtype()

    def raw(self) -> np.ndarray:
        """Its values, whatever they are."""
        return self.handle.get_tensor(self.name)

    def read(self) -> np.ndarray:
        """Its values. Raises UserError unless they are finite floating-point numbers."""
        if self.dtype not in FLOATS:
            raise UserError(f"{self.file}: {self.name} is of type {self.dtype}; expected {', '.join(FLOATS)}")
        values = self.raw()
        if not np.isfinite(values).all():
            raise UserError(f"{self.file}: {self.name} holds a NaN or an infinity: the file is damaged")
        return values


def stored(folder: Path) -> dict[str, Stored]:
    """All parameters of a folder, by canonical Hugging Face name, from one file or the shards of its index.

    Raises UserError for pickles, a missing or truncated file, a shard outside the folder, a name met twice.
    """
    found: dict[str, Stored] = {}
    for file in files(folder):
        handle = _open(file)
        for name in handle.keys():  # noqa: SIM118 (a handle is no mapping)
            key = canonical(name)
            if key is None:
                continue
            if key in found:
                raise UserError(f"{file}: {name} was met before as {found[key].name}: keep one")
            found[key] = Stored(file, name, handle)
    return found


def files(folder: Path) -> list[Path]:
    """The one file, or the shards, that hold a folder's parameters. Raises UserError as `stored` does."""
    index = folder / INDEX
    if (folder / MODEL).exists():
        return [folder / MODEL]
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
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(s, str) for s in shards.values()) or not shards:
        raise UserError(f"{index}: weight_map must map each tensor to its file")
    for name in set(shards.values()):
        if not re.fullmatch(r"[\w-][\w.-]*\.safetensors", name):
            raise UserError(f"{index}: {name!r} is no safetensors file of this folder")
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is listed in {index.name} but missing: download this shard")
    return [folder / name for name in sorted(set(shards.values()))]


def _open(file: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(file, framework="np")
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is truncated or no safetensors file ({error}): download it again") from error


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
