"""Bases from folders and from seeds, and back: `load`, `random_base`, `hf_tensors`, `save`."""

import json
import math
import os
import zlib
from collections.abc import Iterable, Iterator
from functools import lru_cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from moejax.experts.checkpoint import Stored, canonical, read_json, stored
from moejax.experts.homes import Homes
from moejax.models.base import Base, fingerprint
from moejax.models.configs import configure, hf_config
from moejax.models.decoder import Decoder, DecoderConfig
from moejax.models.encoder import Encoder, EncoderConfig
from moejax.models.entry import Entry, as_stored, whole_of
from moejax.models.families import HOMES, LEAVES, NAMES
from moejax.models.folder import locate, read_tokenizer
from moejax.types import PyTree, UserError

Model = Encoder | Decoder
Paths = dict[tuple[str, ...], np.ndarray]


def make_model(config: EncoderConfig | DecoderConfig) -> Model:
    """The module of a config."""
    return Encoder(config) if isinstance(config, EncoderConfig) else Decoder(config)


def load(source: str | Path, dtype: str = "float32") -> Base:
    """A base from a Hugging Face folder or hub name, tensor by tensor; `dtype` of parameters and arithmetic.

    Raises UserError for a folder, config or file that is absent, damaged, disagreeing or asks for code.
    """
    folder = locate(source)
    config_file = folder / "config.json"
    config = configure(read_json(config_file), str(config_file), dtype)
    model = make_model(config)
    shapes = _abstract(config)
    found = list(_found(_entries(model, shapes), stored(folder), folder))
    arrays = {path: np.empty(leaf.shape, leaf.dtype) for path, leaf in shapes.items()}
    prints = fingerprint(_filled(arrays, found))
    params = _tree({path: jnp.asarray(arrays.pop(path)) for path in shapes})
    return _base(model, params, prints, folder)


def faults(source: str | Path) -> Iterator[str]:
    """Everything for which `load` would refuse a base, a sentence each: all its tensors are read, none is kept."""
    try:
        folder = locate(source)
        config = configure(read_json(folder / "config.json"), str(folder / "config.json"))
        model, files = make_model(config), stored(folder)
    except UserError as error:
        yield str(error)
        return
    for entry in _entries(model, _abstract(config)):
        try:
            for _, tensor in _found([entry], files, folder):
                tensor.read()
        except UserError as error:
            yield str(error)


def _found(
    entries: Iterable[Entry], files: dict[str, Stored], folder: Path
) -> Iterator[tuple[Entry, Stored]]:
    """Each entry with its tensor; existence and shape are checked before memory is asked for."""
    for entry in entries:
        tensor = files.get(canonical(entry.name) or "")
        if tensor is None:
            raise UserError(f"{folder}: the weights hold no {entry.name}, which config.json asks for")
        if tensor.shape != entry.shape:
            shape, expected = list(tensor.shape), list(entry.shape)
            raise UserError(f"{tensor.file}: {tensor.name} is {shape}, but config.json makes it {expected}")
        yield entry, tensor


def _filled(arrays: Paths, found: list[tuple[Entry, Stored]]) -> Iterator[tuple[str, np.ndarray]]:
    """Put each tensor into `arrays`, and yield it as it was stored."""
    for entry, tensor in found:
        values = tensor.read()
        target = arrays[entry.path] if entry.layer is None else arrays[entry.path][entry.layer]
        target[...] = values.T if entry.turned else values
        yield entry.name, values


def random_base(config: EncoderConfig | DecoderConfig, seed: int = 0, scale: float = 2.0) -> Base:
    """A base of random weights, large enough to show faults: kernels N(0, scale^2 / in).

    Each leaf is drawn by its path, so that a base with more layers or options keeps the rest.
    """
    model = make_model(config)
    arrays = {path: _draw(path, leaf, seed, scale) for path, leaf in _abstract(config).items()}
    params = _tree({path: jnp.asarray(values) for path, values in arrays.items()})
    base = _base(model, params, "", None)
    return _base(model, params, fingerprint(hf_tensors(base)), None)


def _draw(path: tuple[str, ...], leaf: jax.ShapeDtypeStruct, seed: int, scale: float) -> np.ndarray:
    rng = np.random.default_rng([seed, zlib.crc32("/".join(path).encode())])
    noise = rng.standard_normal(leaf.shape, np.float32)
    if path[-1] == "scale":
        return (1 + 0.3 * noise).astype(leaf.dtype)
    if path[-1] == "bias":
        return (0.3 * noise).astype(leaf.dtype)
    size = leaf.shape[-1] if path[-1] == "embedding" else leaf.shape[-2]
    return (scale / math.sqrt(size) * noise).astype(leaf.dtype)


def hf_tensors(base: Base) -> dict[str, np.ndarray]:
    """All parameters under their Hugging Face names and in their shapes, float32."""
    model = base.model
    assert isinstance(model, Model)
    flat = _flat(base.params)
    return {entry.name: as_stored(flat, entry) for entry in _entries(model, flat)}


def save(base: Base, folder: str | Path) -> None:
    """Write config.json and model.safetensors, whole or not at all, for `load` and transformers to read."""
    from safetensors.numpy import save_file

    folder, config = Path(folder), hf_config(base.model.config)  # pyright: ignore[reportAttributeAccessIssue]
    folder.mkdir(parents=True, exist_ok=True)
    save_file(hf_tensors(base), folder / "model.safetensors.new", metadata={"format": "pt"})
    (folder / "config.json.new").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for name in ("model.safetensors", "config.json"):
        os.replace(folder / f"{name}.new", folder / name)


def _base(model: Model, params: PyTree, prints: str, folder: Path | None) -> Base:
    names, layers = _names(model), range(model.config.layers)
    inside = [
        (path, leaf) for path, leaf in _flat(params).items() if path[0] == "layers" and path[-1] == "kernel"
    ]
    unordered = {"/".join(path[:-1]): tuple(leaf.shape[1:]) for path, leaf in inside}
    shapes = {path: unordered[path] for path in names if path in unordered}
    sites = {names[path].format(layer): (path, layer) for path in shapes for layer in layers}
    return Base(
        model=model, params=params, fingerprint=prints, sites=sites,
        shapes=shapes,
        read_tokenizer=None if folder is None else partial(read_tokenizer, folder),
        folder=None if folder is None else str(folder), homes=_homes(model, params, folder),
    )  # fmt: skip


def _homes(model: Model, params: PyTree, folder: Path | None) -> Homes:
    names, layers = HOMES["encoder" if isinstance(model, Encoder) else "decoder"], range(model.config.layers)
    modules = {name.format(layer): (path, layer) for path, name in names.items() for layer in layers}
    flat = _flat(params)
    return Homes(
        modules, model.config.width, whole_of(model.config, flat, list(_entries(model, flat)), folder)
    )


def _names(model: Model) -> dict[str, str]:
    return NAMES["encoder" if isinstance(model, Encoder) else "decoder"]


def _entries(model: Model, leaves: dict) -> Iterator[Entry]:
    """Every Hugging Face tensor that the parameters `leaves` (by path, with shapes) stand for."""
    names = _names(model)
    for path, leaf in leaves.items():
        name = f"{names['/'.join(path[:-1])]}.{LEAVES[path[-1]]}"
        inside = path[0] == "layers"
        shape = tuple(leaf.shape[1:] if inside else leaf.shape)
        shape = shape[::-1] if path[-1] == "kernel" else shape
        for layer in range(model.config.layers) if inside else (None,):
            yield Entry(name.format(layer), path, layer, shape)


@lru_cache(maxsize=16)
def _abstract(config: EncoderConfig | DecoderConfig) -> dict[tuple[str, ...], jax.ShapeDtypeStruct]:
    model = make_model(config)
    tokens = jnp.zeros((1, 1), jnp.int32)
    return _flat(jax.eval_shape(model.init, jax.random.key(0), tokens, tokens == 0)["params"])


def _flat(tree: PyTree) -> dict:
    from flax.traverse_util import flatten_dict

    return flatten_dict(tree)


def _tree(flat: dict) -> PyTree:
    from flax.traverse_util import unflatten_dict

    return unflatten_dict(flat)
