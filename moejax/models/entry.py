"""One Hugging Face tensor and where it lies in our parameters; all of a base's, for experts that are whole models."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from moejax.experts.checkpoint import MODEL_CONFIG, Stored, canonical, read_json, stored
from moejax.experts.whole import Leaf, Whole
from moejax.models import t5
from moejax.models.configs import Config, configure, hf_config
from moejax.models.encoder import EncoderConfig
from moejax.models.quantised import is_quantised, plain
from moejax.models.seq2seq import Seq2SeqConfig
from moejax.types import UserError


class Entry(NamedTuple):
    """One Hugging Face tensor and where it lies in our parameters (layer None: not stacked).

    turned: whether the tensor [out, in] is our kernel [in, out] transposed.
    """

    name: str
    path: tuple[str, ...]
    layer: int | None
    shape: tuple[int, ...]
    turned: bool


def as_stored(flat: Mapping[tuple[str, ...], Any], entry: Entry) -> np.ndarray:
    """A tensor from parameters by path, in its Hugging Face shape, float32."""
    leaf = plain(flat[entry.path])
    values = np.asarray(leaf if entry.layer is None else leaf[entry.layer], np.float32)
    return np.ascontiguousarray(values.T if entry.turned else values)


def _shape(config: Config) -> Config:
    """A config without what says how it is computed and used, its head size spelled out."""
    if isinstance(config, EncoderConfig):
        return replace(config, remat=False, formulation=None, temperature=1.0)
    if isinstance(config, Seq2SeqConfig):
        return replace(config, remat=False, formulation=None)
    return replace(config, remat=False, formulation=None, head_dim=config.block.head_dim)


def _number(config: Config, entry: Entry) -> int | None:
    """The layer's number in the base, which counts from the top where there are several stacks."""
    if entry.layer is None or not isinstance(config, Seq2SeqConfig):
        return entry.layer
    return entry.layer + config.layers - config.stacks[entry.path[0]]


def whole_of(
    config: Config,
    flat: Mapping[tuple[str, ...], Any],
    entries: Sequence[Entry],
    folder: Path | None,
) -> Whole:
    """All tensors of a base; a base that computes in fewer bits gives those of its folder, which are exact."""
    by_name = {entry.name: entry for entry in entries}
    exact = config.dtype == "float32" and not any(map(is_quantised, flat.values()))

    @cache
    def files() -> dict[str, Stored]:
        assert folder is not None
        return stored(folder)

    def tensor(name: str) -> np.ndarray:
        if exact or folder is None:
            return as_stored(flat, by_name[name])
        return files()[canonical(name) or ""].read().astype(np.float32)

    def check(other: Path) -> None:
        file = other / MODEL_CONFIG
        found = configure(read_json(file), str(file), config.dtype)
        if isinstance(found, Seq2SeqConfig):
            found = t5.with_head(found, stored(other))
        if _shape(found) != _shape(config):
            raise UserError(f"{file}: another architecture than the base, of which it should be a fine-tune")

    leaves = {e.name: Leaf("/".join(e.path), _number(config, e), e.shape, e.turned) for e in entries}
    return Whole(leaves, tensor, lambda: hf_config(config), check)
