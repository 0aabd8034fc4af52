"""A name for the content of an expert: equal for equal weights, however they were stored."""

import hashlib
import struct
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from moejax.experts.bottleneck import Bottleneck
from moejax.experts.delta import Delta
from moejax.experts.expert import SiteKey
from moejax.experts.lora import Lora
from moejax.experts.part import Part, rank


def content_hash(parts: Mapping[SiteKey, Part], rest: Mapping[str, np.ndarray] | None = None) -> str:
    """sha256 over path, layer, rank, scale, non-linearity and the float32 bytes of all tensors, sites sorted.

    rest: of an expert of differences, those outside the layers.

    File dtype (where it holds the same numbers), order of tensors and names of files play no part.
    """
    digest = hashlib.sha256(b"moejax lora 1")
    for path, layer in sorted(parts):
        _add(digest, path, layer, parts[path, layer])
    for path in sorted(rest or {}):
        _name(digest, path)
        _tensors(digest, [(rest or {})[path]])
    return "sha256:" + digest.hexdigest()


def modules_hash(parts: Mapping[str, Part]) -> str:
    """The same over Hugging Face module names, for where no base is at hand to say which sites they are.

    It tells equal content within the commands on a pool folder, and nothing else: `moejax.json` and routers
    record `content_hash`, which is another number for the same weights.
    """
    digest = hashlib.sha256(b"moejax modules 1")
    for module in sorted(parts):
        _add(digest, module, 0, parts[module])
    return "modules:" + digest.hexdigest()


def _add(digest: Any, name: str, layer: int, one: Part) -> None:
    _name(digest, name)
    if isinstance(one, Lora):
        digest.update(struct.pack("<qqd?", layer, rank(one), one.alpha, one.rslora))
    elif isinstance(one, Bottleneck):
        digest.update(struct.pack("<qqd", layer, rank(one), one.scale) + b"bottleneck " + one.act.encode())
        for bias in (one.a_bias, one.b_bias):
            digest.update(np.ascontiguousarray(bias, "<f4").tobytes())
    else:
        digest.update(struct.pack("<q", layer) + b"delta")
    if isinstance(one, Lora) and one.bias is not None:
        _tensors(digest, [one.bias])
    _tensors(digest, one if isinstance(one, Delta) else (one.a, one.b))


def _name(digest: Any, name: str) -> None:
    data = name.encode()
    digest.update(struct.pack("<q", len(data)) + data)


def _tensors(digest: Any, some: Iterable[np.ndarray]) -> None:
    for tensor in some:
        digest.update(struct.pack(f"<{tensor.ndim}q", *tensor.shape))
        digest.update(np.ascontiguousarray(tensor, "<f4").tobytes())
