"""A tiny encoder's sites, and experts on them."""

from typing import NamedTuple

import numpy as np
import pytest

from moejax.experts.expert import Expert
from moejax.experts.lora import Lora

BERT = {
    "attention.self.query": "layers/attn/q",
    "attention.self.key": "layers/attn/k",
    "attention.self.value": "layers/attn/v",
    "attention.output.dense": "layers/attn/o",
    "intermediate.dense": "layers/mlp/up",
    "output.dense": "layers/mlp/down",
}
WIDTH, INNER, LAYERS = 8, 12, 3


class Tiny(NamedTuple):
    """What reading needs to know of a base."""

    sites: dict
    shapes: dict
    layers: int
    fingerprint: str = "sha256:tiny"

    def module(self, path, layer):
        return next(m for m, site in self.sites.items() if site == (path, layer))

    def expert(self, name, sites=None, seed=0, **info):
        """LoRAs at {(path, layer): (rank, alpha, rslora)}."""
        sites = sites or {("layers/attn/q", 1): (2, 4.0, False), ("layers/mlp/up", 2): (3, 6.0, False)}
        rng = np.random.default_rng(seed)
        loras = {}
        for (path, layer), (r, alpha, rslora) in sites.items():
            d, f = self.shapes[path]
            a, b = rng.normal(size=(r, d)).astype(np.float32), rng.normal(size=(r, f)).astype(np.float32)
            loras[path, layer] = Lora(a, b, alpha, rslora)
        return Expert(name, {"task": name, "base": self.fingerprint} | info, loras)


@pytest.fixture
def tiny():
    shapes = dict.fromkeys(BERT.values(), (WIDTH, WIDTH))
    shapes |= {"layers/mlp/up": (WIDTH, INNER), "layers/mlp/down": (INNER, WIDTH)}
    sites = {f"encoder.layer.{i}.{m}": (path, i) for i in range(LAYERS) for m, path in BERT.items()}
    return Tiny(sites, shapes, LAYERS)
