"""A LoRA expert merged into its base: a whole model in Hugging Face's layout, tensor by tensor, in shards."""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from moejax.experts import folder as folders
from moejax.experts import links, lora
from moejax.experts.checkpoint import (
    FLOATS,
    INDEX,
    MODEL,
    MODEL_CONFIG,
    Stored,
    canonical,
    read_json,
    stored,
)
from moejax.experts.expert import Expert
from moejax.experts.whole import Leaf, Whole
from moejax.types import UserError

DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
BESIDE = ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "*.model",
          "chat_template*", "generation_config.json")  # fmt: skip


class Written(NamedTuple):
    """One tensor of the model to be: its name, its shape, the base's own (leaf) or one that moejax does not know."""

    name: str
    shape: tuple[int, ...]
    leaf: str | None
    other: Stored | None = None


def write_whole(
    folder: Path, expert: Expert, whole: Whole, source: Path | None, shard: int, dtype: str = "float32"
) -> list[str]:
    """Make or replace a folder with base + expert that transformers loads; gives the names of its weight files.

    source: the base's folder, whose config, tokenizer and further tensors come along. shard: bytes of a file at most
    (a larger tensor has one of its own). At most one shard is in memory.
    Raises UserError where the base lacks a site, or a bias that the expert moves.
    """
    tensors = list(_tensors(whole, source))
    _check(expert, whole)
    plan = list(_shards(tensors, shard, np.dtype(_numpy(dtype)).itemsize))
    names = [MODEL] if len(plan) == 1 else [_shard_name(i, len(plan)) for i in range(len(plan))]

    def fill(new: Path) -> None:
        from safetensors.numpy import save_file

        for name, some in zip(names, plan, strict=True):
            values = {one.name: _value(one, expert, whole, dtype) for one in some}
            save_file(values, new / name, metadata={"format": "pt"})
        if len(plan) > 1:
            where = {one.name: name for name, some in zip(names, plan, strict=True) for one in some}
            size = sum(_size(one) for one in tensors) * np.dtype(_numpy(dtype)).itemsize
            index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(where.items()))}
            (new / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        folders.write_json(new / MODEL_CONFIG, _config(whole, source, dtype))
        for path in _beside(source):
            shutil.copyfile(path, new / path.name)

    folders.write_folder(folder, fill)
    return names


def _shard_name(i: int, count: int) -> str:
    return f"model-{i + 1:05}-of-{count:05}.safetensors"


def _numpy(dtype: str) -> Any:
    import ml_dtypes

    return ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)


def _tensors(whole: Whole, source: Path | None) -> Iterator[Written]:
    """What the model consists of, by the names of the base's own files where there are any."""
    if source is None:
        yield from (Written(name, leaf.shape, name) for name, leaf in whole.leaves.items())
        return
    ours = {canonical(name): name for name in whole.leaves}
    for key, tensor in stored(source).items():
        yield Written(tensor.name, tensor.shape, ours.get(key), tensor)


def _size(one: Written) -> int:
    return int(np.prod(one.shape, dtype=np.int64))


def _shards(tensors: Iterable[Written], most: int, width: int) -> Iterator[list[Written]]:
    held: list[Written] = []
    bytes_held = 0
    for one in tensors:
        size = _size(one) * width
        if held and bytes_held + size > most:
            yield held
            held, bytes_held = [], 0
        held.append(one)
        bytes_held += size
    if held:
        yield held


def _value(one: Written, expert: Expert, whole: Whole, dtype: str) -> np.ndarray:
    if one.leaf is None:
        assert one.other is not None
        values = one.other.raw()
        return values.astype(_numpy(dtype)) if one.other.dtype in FLOATS else values
    values, leaf = whole.tensor(one.leaf), whole.leaves[one.leaf]
    change = _change(expert, leaf)
    if change is not None:
        values = values + (change.T if leaf.turned else change).reshape(values.shape)
    with np.errstate(over="ignore"):
        made = np.ascontiguousarray(values.astype(_numpy(dtype)))
    if not np.isfinite(made.astype(np.float32)).all():
        raise UserError(f"expert {expert.name!r}: {one.name} is beyond {dtype}: write it as float32")
    return made


def _change(expert: Expert, leaf: Leaf) -> np.ndarray | None:
    """What the expert adds to a parameter of the base."""
    found = None if leaf.layer is None else expert.loras.get((leaf.module, leaf.layer))
    if found is None:
        return None
    if leaf.path.endswith("/bias"):
        return None if found.bias is None else np.float32(lora.scale(found)) * found.bias
    return lora.delta(found)


def _check(expert: Expert, whole: Whole) -> None:
    """Raise UserError unless all that the expert changes is there."""
    there = {(leaf.module, leaf.layer, leaf.path.endswith("/bias")) for leaf in whole.leaves.values()}
    for (path, layer), one in expert.loras.items():
        here = f"expert {expert.name!r} at {path!r}, layer {layer}"
        if (path, layer, False) not in there:
            raise UserError(f"{here}: the base has no such site")
        if one.bias is not None and one.bias.any() and (path, layer, True) not in there:
            raise UserError(
                f"{here}: the base has no bias there to merge the expert's into: keep the adapter"
            )


def _config(whole: Whole, source: Path | None, dtype: str) -> Mapping[str, Any]:
    config = dict(whole.config() if source is None else read_json(source / MODEL_CONFIG))
    config.pop("torch_dtype", None)
    return config | {"dtype": dtype}


def _beside(source: Path | None) -> list[Path]:
    """Tokenizer and generation settings of the base."""
    found = sorted({path for pattern in BESIDE for path in (source.glob(pattern) if source else ())})
    for path in found:
        links.check(path)
    return [path for path in found if path.is_file()]
