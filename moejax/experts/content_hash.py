"""A name for the content of an expert: equal for equal weights, however they were stored."""

import hashlib
import struct

import numpy as np

from moejax.experts.expert import SiteKey
from moejax.experts.lora import Lora, rank


def content_hash(loras: dict[SiteKey, Lora]) -> str:
    """sha256 over path, layer, rank, alpha, rsLoRA and the float32 bytes of both factors, sites sorted.

    File dtype (where it holds the same numbers), order of tensors and names of files play no part.
    """
    digest = hashlib.sha256(b"moejax lora 1")
    for path, layer in sorted(loras):
        one = loras[path, layer]
        name = path.encode()
        digest.update(struct.pack("<q", len(name)) + name)
        digest.update(struct.pack("<qqd?", layer, rank(one), one.alpha, one.rslora))
        for factor in (one.a, one.b):
            digest.update(struct.pack("<qq", *factor.shape))
            digest.update(np.ascontiguousarray(factor, "<f4").tobytes())
    return "sha256:" + digest.hexdigest()
