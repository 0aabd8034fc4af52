"""The files of an expert's folder: their names, and how they are read and written without harm."""

import difflib
import json
import os
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from reprlib import Repr
from typing import Any

import numpy as np

from moejax.experts import links
from moejax.types import UserError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PICKLE = "adapter_model.bin"
ADAPTERS_WEIGHTS = "adapter.safetensors"
ADAPTERS_PICKLE = "pytorch_adapter.bin"
INFO = "moejax.json"
EXTRAS = "moejax_extras.safetensors"
SAMPLES = "moejax_samples.jsonl"
_shorter = Repr()
_shorter.maxstring = _shorter.maxother = _shorter.maxlong = 100
shown = _shorter.repr  # a value of a stranger's in an error message, however long it is
BIGGEST_JSON = 16 * 2**20  # bytes
DTYPES = ("F64", "F32", "F16", "BF16")


def check_name(name: str) -> None:
    """Raise UserError unless `name` may name an expert: a plain name, no path, no control characters."""
    if not name or name in (".", "..") or len(name.encode()) > 255 or name != name.strip():
        raise UserError(f"{name!r} cannot name an expert: use 1 to 255 characters without spaces at the ends")
    if any(c in "/\\:" or unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in name):
        raise UserError(f"{name!r} cannot name an expert: no '/', '\\', ':' or control characters")


def twin(name: str) -> str:
    """The same text for names that differ only in case or in how accents are encoded."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def check_names(names: Iterable[str]) -> None:
    """Raise UserError on a bad name, or on two that differ only in case or in how accents are encoded."""
    seen: dict[str, str] = {}
    for name in names:
        check_name(name)
        first = seen.setdefault(twin(name), name)
        if first != name:
            raise UserError(f"experts {first!r} and {name!r} differ only in case: rename one")


def expert_folders(pool: Path) -> list[Path]:
    """The experts' folders of a pool: its sub-folders, sorted by name; hidden ones are passed over."""
    return sorted(path for path in pool.iterdir() if path.is_dir() and not path.name.startswith("."))


def closest(name: str, known: Iterable[str]) -> str:
    """' (closest: …)' for an error message, or nothing."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f" (closest: {near[0]!r})" if near else ""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises UserError when it is missing, too large, not one, or a link that leaves."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    links.check(path)
    if path.stat().st_size > BIGGEST_JSON:
        raise UserError(f"{path}: larger than {BIGGEST_JSON >> 20} MiB, which no such file needs")
    try:
        value = json.loads(path.read_bytes().decode())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


class Tensors:
    """An open safetensors file: names, shapes without reading, and single tensors as checked float32."""

    def __init__(self, path: Path, file: Any):
        self.path, self.file, self.names = path, file, sorted(file.keys())

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape that the header states."""
        return tuple(self.file.get_slice(name).get_shape())

    def read(self, name: str) -> np.ndarray:
        """One tensor as float32. Raises UserError when it is not of a float dtype or not finite."""
        dtype = self.file.get_slice(name).get_dtype()
        if dtype not in DTYPES:
            raise UserError(f"{self.path}: tensor {name!r} is {dtype}: expected one of {', '.join(DTYPES)}")
        with np.errstate(over="ignore"):
            value = np.asarray(self.file.get_tensor(name)).astype(np.float32)
        if not np.isfinite(value).all():
            raise UserError(f"{self.path}: tensor {name!r} holds NaN or infinity")
        return value


@contextmanager
def open_tensors(path: Path) -> Iterator[Tensors]:
    """Open a safetensors file. Raises UserError when it is missing, truncated, corrupt, or a link that leaves."""
    import ml_dtypes  # noqa: F401  # teaches numpy bfloat16
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"{path}: no such file")
    links.check(path)
    try:
        with safe_open(path, "np") as file:
            yield Tensors(path, file)
    except SafetensorError as error:
        raise UserError(f"{path}: truncated or not a safetensors file ({error})") from None


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write float32 tensors in sorted order, atomically."""
    from safetensors.numpy import save

    values = {name: np.ascontiguousarray(tensors[name], np.float32) for name in sorted(tensors)}
    write_bytes(path, save(values, {"format": "pt"}))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object, atomically. Raises UserError on what JSON cannot hold."""
    try:
        text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: {error}: only numbers, strings, lists and objects can be stored") from None
    write_bytes(path, (text + "\n").encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file in one step: readers see the old content or the new, never a half."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Make or replace a folder: `fill` writes into a hidden sibling, which then takes its place."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    new, old = work / "new", work / "old"
    try:
        new.mkdir()
        fill(new)
        if folder.exists():
            os.replace(folder, old)
        os.replace(new, folder)
    finally:
        if old.exists() and not folder.exists():
            os.replace(old, folder)
        shutil.rmtree(work, ignore_errors=True)
