"""A name for the content of an expert: equal for equal weights, however they were stored."""

import hashlib
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from moejax.experts.expert import SiteKey
from moejax.experts.lora import Lora, rank


def content_hash(loras: dict[SiteKey, Lora]) -> str:
    """sha256 over path, layer, rank, alpha, rsLoRA and the float32 bytes of both factors, sites sorted.

    File dtype (where it holds the same numbers), order of tensors and names of files play no part.
    """
    digest = hashlib.sha256(b"moejax lora 1")
    for path, layer in sorted(loras):
        _add(digest, path, layer, loras[path, layer])
    return "sha256:" + digest.hexdigest()


def modules_hash(loras: Mapping[str, Lora]) -> str:
    """The same over Hugging Face module names, for where no base is at hand to say which sites they are.

    It tells equal content within the commands on a pool folder, and nothing else: `moejax.json` and routers
    record `content_hash`, which is another number for the same weights.
    """
    digest = hashlib.sha256(b"moejax modules 1")
    for module in sorted(loras):
        _add(digest, module, 0, loras[module])
    return "modules:" + digest.hexdigest()


def _add(digest: Any, name: str, layer: int, one: Lora) -> None:
    data = name.encode()
    digest.update(struct.pack("<q", len(data)) + data)
    digest.update(struct.pack("<qqd?", layer, rank(one), one.alpha, one.rslora))
    for factor in (one.a, one.b):
        digest.update(struct.pack("<qq", *factor.shape))
        digest.update(np.ascontiguousarray(factor, "<f4").tobytes())
