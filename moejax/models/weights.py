"""Bases from folders and from seeds, and back: `load`, `random_base`, `hf_tensors`, `save`."""

import json
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moejax.experts.checkpoint import Stored, canonical
from moejax.experts.homes import Homes
from moejax.models import t5
from moejax.models.base import Base, fingerprint, line, sealed
from moejax.models.configs import Config, family_of, hf_config
from moejax.models.decoder import Decoder, DecoderConfig
from moejax.models.encoder import Encoder, EncoderConfig
from moejax.models.entry import Entry, as_stored, whole_of
from moejax.models.families import FAMILIES, Family
from moejax.models.folder import read_tokenizer
from moejax.models.names import LEAVES
from moejax.models.quantised import Bits, quantised
from moejax.models.seq2seq import Seq2Seq, Seq2SeqConfig
from moejax.models.settings import opened
from moejax.parallel.spread import put
from moejax.types import PyTree, UserError

Model = Encoder | Decoder | Seq2Seq
Placing = Callable[[str, tuple[int, ...]], jax.sharding.Sharding | None]


def make_model(config: Config) -> Model:
    """The module of a config."""
    if isinstance(config, Seq2SeqConfig):
        return Seq2Seq(config)
    return Encoder(config) if isinstance(config, EncoderConfig) else Decoder(config)


def load(
    source: str | Path, dtype: str = "float32", sharding: Placing | None = None, bits: Bits | None = None
) -> Base:
    """A base from a Hugging Face folder or hub name; `dtype` of parameters and arithmetic.

    Read tensor by tensor into one stacked leaf after the other, in `dtype`; each goes to its devices before the
    next is begun. `sharding(path, shape)` says where, None: the default device; devices of other processes too. bits:
    kernels of the layers are quantised there, each before the next is read.
    Raises UserError for a folder, config or file that is absent, damaged, disagreeing or asks for code.
    """
    folder, config, files = opened(source, dtype)
    model = make_model(config)
    shapes = _abstract(config)
    found: dict[tuple[str, ...], list[tuple[Entry, Stored]]] = {path: [] for path in shapes}
    for entry, tensor in _found(_entries(model, shapes), files, folder):
        found[entry.path].append((entry, tensor))
    leaves: dict[tuple[str, ...], Any] = {}
    lines: list[str | None] = []
    for path, leaf in shapes.items():
        values = np.empty(leaf.shape, leaf.dtype)
        lines += [line(entry.name, entry.shape, _placed(values, entry, one)) for entry, one in found[path]]
        where = None if sharding is None else sharding("/".join(path), leaf.shape)
        leaf = jax.block_until_ready(put(values, where))
        linear = path[0] in _depths(model) and path[-1] == "kernel"
        leaves[path] = quantised(leaf, bits) if bits and linear else leaf
        del values
    return _base(model, _tree(leaves), sealed(lines), folder)


def _placed(leaf: np.ndarray, entry: Entry, tensor: Stored) -> Iterator[np.ndarray]:
    """Put a tensor into its leaf piece by piece, and yield the pieces as they were stored."""
    target = leaf if entry.layer is None else leaf[entry.layer]
    target = target.T if entry.turned else target
    for rows, values in tensor.checked():
        target[rows] = values
        yield values


def faults(source: str | Path) -> Iterator[str]:
    """Everything for which `load` would refuse a base, a sentence each: all its tensors are read, none is kept."""
    try:
        folder, config, files = opened(source, "float32")
        model = make_model(config)
    except UserError as error:
        yield str(error)
        return
    for entry in _entries(model, _abstract(config)):
        try:
            for _, tensor in _found([entry], files, folder):
                for _ in tensor.checked():
                    pass
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


def random_base(config: Config, seed: int = 0, scale: float = 2.0) -> Base:
    """A base of random weights, large enough to show faults: kernels N(0, scale^2 / in).

    Each leaf is drawn by its path, so that a base with more layers or options keeps the rest.
    """
    model, shifted = make_model(config), isinstance(config, DecoderConfig) and config.norm == "shifted"
    drawn = {
        path: _draw(path, leaf, seed, scale, shifted) * _size(config, path)
        for path, leaf in _abstract(config).items()
    }
    params = _tree({path: jnp.asarray(values) for path, values in drawn.items()})
    base = _base(model, params, "", None)
    return _base(model, params, fingerprint(hf_tensors(base)), None)


def _draw(
    path: tuple[str, ...], leaf: jax.ShapeDtypeStruct, seed: int, scale: float, shifted: bool
) -> np.ndarray:
    rng = np.random.default_rng([seed, zlib.crc32("/".join(path).encode())])
    noise = rng.standard_normal(leaf.shape, np.float32)
    if path[-1] == "scale":
        return ((0 if shifted else 1) + 0.3 * noise).astype(leaf.dtype)
    if path[-1] == "bias":
        return (0.3 * noise).astype(leaf.dtype)
    size = leaf.shape[-1] if path[-1] == "embedding" else leaf.shape[-2]
    return (scale / math.sqrt(size) * noise).astype(leaf.dtype)


def _size(config: Config, path: tuple[str, ...]) -> Any:
    """What T5 draws otherwise: queries smaller, as its logits are not scaled, and the word embedding larger."""
    if not isinstance(config, Seq2SeqConfig):
        return 1
    size = {"q": config.head_dim**-0.5, "embed": config.width**0.5}.get(path[-2], 1)
    return np.asarray(size, config.dtype)


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
    names, depths = _names(model), _depths(model)
    kernels = [
        (path, leaf) for path, leaf in _flat(params).items() if path[0] in depths and path[-1] == "kernel"
    ]
    unordered = {"/".join(path[:-1]): tuple(leaf.shape[1:]) for path, leaf in kernels}
    shapes = {path: unordered[path] for path in names if path in unordered}
    sites = {}
    for path in shapes:
        depth = depths[path.split("/")[0]]
        below = model.config.layers - depth
        sites |= {names[path].format(block): (path, below + block) for block in range(depth)}
    return Base(
        model=model, params=params, fingerprint=prints, sites=sites,
        shapes=shapes,
        read_tokenizer=None if folder is None else partial(read_tokenizer, folder, model.config.vocab),
        folder=None if folder is None else str(folder), homes=_homes(model, params, folder),
    )  # fmt: skip


def _homes(model: Model, params: PyTree, folder: Path | None) -> Homes:
    layers = range(model.config.layers)
    modules = {name.format(i): (path, i) for path, name in _family(model).homes.items() for i in layers}
    flat = _flat(params)
    return Homes(
        modules, model.config.width, whole_of(model.config, flat, list(_entries(model, flat)), folder)
    )


def _depths(model: Model) -> dict[str, int]:
    """The stacks of a model, and how many blocks each has."""
    return model.config.stacks if isinstance(model, Seq2Seq) else {"layers": model.config.layers}


def _family(model: Model) -> Family:
    return FAMILIES[family_of(model.config)]


def _names(model: Model) -> dict[str, str]:
    return t5.names_of(model.config) if isinstance(model, Seq2Seq) else _family(model).names


def _entries(model: Model, leaves: dict) -> Iterator[Entry]:
    """Every Hugging Face tensor that the parameters `leaves` (by path, with shapes) stand for."""
    family, names, depths = _family(model), _names(model), _depths(model)
    for path, leaf in leaves.items():
        name = f"{names['/'.join(path[:-1])]}.{LEAVES[path[-1]]}"
        stacked = path[0] in depths
        shape = tuple(leaf.shape[1:] if stacked else leaf.shape)
        turned = path[-1] == "kernel" and (family.turned or path == ("lm_head", "kernel"))
        for layer in range(depths[path[0]]) if stacked else (None,):
            yield Entry(name.format(layer), path, layer, shape[::-1] if turned else shape, turned)


@lru_cache(maxsize=16)
def _abstract(config: Config) -> dict[tuple[str, ...], jax.ShapeDtypeStruct]:
    model = make_model(config)
    tokens = jnp.zeros((1, 1), jnp.int32)
    return _flat(jax.eval_shape(model.init, jax.random.key(0), tokens, tokens == 0)["params"])


def _flat(tree: PyTree) -> dict:
    from flax.traverse_util import flatten_dict

    return flatten_dict(tree)


def _tree(flat: dict) -> PyTree:
    from flax.traverse_util import unflatten_dict

    return unflatten_dict(flat)
