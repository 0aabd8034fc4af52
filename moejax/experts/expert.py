"""One contributor's expert: its name, what it says of itself, and what it has at each site."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from moejax.experts.bottleneck import Bottleneck
from moejax.experts.delta import Delta
from moejax.experts.lora import Lora
from moejax.experts.part import Part

SiteKey = tuple[str, int]  # (path, layer)


class Expert(NamedTuple):
    """name: the folder's or the user's own; info: the content of `moejax.json`; what it has, by (path, layer).

    rest: the differences of parameters outside the layers (embeddings, last norm, head), by path of the parameter.
    """

    name: str
    info: dict[str, Any]
    loras: dict[SiteKey, Lora]
    bottlenecks: Mapping[SiteKey, Bottleneck] = {}
    deltas: Mapping[SiteKey, Delta] = {}
    rest: Mapping[str, np.ndarray] = {}

    @property
    def parts(self) -> dict[SiteKey, Part]:
        """What it has at sites; a linear and a sub-layer are never one site."""
        return {**self.loras, **self.bottlenecks, **self.deltas}


def expert_of(
    name: str,
    info: dict[str, Any],
    parts: Mapping[SiteKey, Part],
    rest: Mapping[str, np.ndarray] | None = None,
) -> Expert:
    """The expert that has these parts."""
    loras = {site: part for site, part in parts.items() if isinstance(part, Lora)}
    bottlenecks = {site: part for site, part in parts.items() if isinstance(part, Bottleneck)}
    deltas = {site: part for site, part in parts.items() if isinstance(part, Delta)}
    return Expert(name, info, loras, bottlenecks, deltas, rest or {})
