"""A name for the content of an expert: equal for equal weights, however they were stored."""

import hashlib
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from moejax.experts.expert import SiteKey
from moejax.experts.lora import Lora
from moejax.experts.part import Part, rank


def content_hash(parts: Mapping[SiteKey, Part]) -> str:
    """sha256 over path, layer, rank, scale, non-linearity and the float32 bytes of all tensors, sites sorted.

    File dtype (where it holds the same numbers), order of tensors and names of files play no part.
    """
    digest = hashlib.sha256(b"moejax lora 1")
    for path, layer in sorted(parts):
        _add(digest, path, layer, parts[path, layer])
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
    data = name.encode()
    digest.update(struct.pack("<q", len(data)) + data)
    if isinstance(one, Lora):
        digest.update(struct.pack("<qqd?", layer, rank(one), one.alpha, one.rslora))
    else:
        digest.update(struct.pack("<qqd", layer, rank(one), one.scale) + b"bottleneck " + one.act.encode())
        for bias in (one.a_bias, one.b_bias):
            digest.update(np.ascontiguousarray(bias, "<f4").tobytes())
    for factor in (one.a, one.b):
        digest.update(struct.pack("<qq", *factor.shape))
        digest.update(np.ascontiguousarray(factor, "<f4").tobytes())
