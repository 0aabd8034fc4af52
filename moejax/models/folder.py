"""A Hugging Face folder of a stranger: found, its config read, its safetensors opened, its tokenizer read."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from moejax.models.families import canonical
from moejax.types import UserError

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
FLOATS = ("F64", "F32", "F16", "BF16")
VOCABULARIES = (
    "tokenizer.json",
    "vocab*",
    "*.model",
)  # without one of them transformers makes an empty tokenizer
WANTED = ("config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*", "vocab*", "merges.txt",
          "special_tokens_map.json", "*.model")  # fmt: skip


def locate(source: str | Path) -> Path:
    """The folder of a base: `source` itself, or a snapshot of the hub's repository of that name.

    Raises UserError when there is no such folder and the hub does not give one.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise UserError(f"{source} is a file: give its folder, with config.json")
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", str(source)):
        raise UserError(f"there is no folder {source}: give a folder with config.json and model.safetensors")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(source), allow_patterns=list(WANTED)))
    except Exception as error:  # whatever the network and the hub's client raise
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{source} is neither a folder here nor a model that the hub gives ({why}): "
            "download it where there is a network and give its folder"
        ) from error


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

    def read(self) -> np.ndarray:
        """Its values. Raises UserError unless they are finite floating-point numbers."""
        dtype = self.handle.get_slice(self.name).get_dtype()
        if dtype not in FLOATS:
            raise UserError(f"{self.file}: {self.name} is of type {dtype}; expected {', '.join(FLOATS)}")
        values = self.handle.get_tensor(self.name)
        if not np.isfinite(values).all():
            raise UserError(f"{self.file}: {self.name} holds a NaN or an infinity: the file is damaged")
        return values


def stored(folder: Path) -> dict[str, Stored]:
    """All parameters of a folder, by canonical Hugging Face name, from one file or the shards of its index.

    Raises UserError for pickles, a missing or truncated file, a shard outside the folder, a name met twice.
    """
    found: dict[str, Stored] = {}
    for file in _files(folder):
        handle = _open(file)
        for name in handle.keys():  # noqa: SIM118 (a handle is no mapping)
            key = canonical(name)
            if key is None:
                continue
            if key in found:
                raise UserError(f"{file}: {name} was met before as {found[key].name}: keep one")
            found[key] = Stored(file, name, handle)
    return found


def _files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").exists():
        return [folder / "model.safetensors"]
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


def read_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder, never running code of it. Raises UserError when there is none."""
    from transformers import AutoTokenizer

    if not any(path for pattern in VOCABULARIES for path in folder.glob(pattern)):
        names = ", ".join(VOCABULARIES)
        raise UserError(
            f"{folder}: no tokenizer can be read (there is none of {names}): copy the base's own there"
        )
    try:
        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    except Exception as error:  # whatever the library raises on a stranger's files
        raise UserError(f"{folder}: no tokenizer can be read ({error})") from error
