"""One contributor's expert: its name, what it says of itself, and what it has at each site."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from moejax.experts.bottleneck import Bottleneck
from moejax.experts.lora import Lora
from moejax.experts.part import Part

SiteKey = tuple[str, int]  # (path, layer)


class Expert(NamedTuple):
    """name: the folder's or the user's own; info: the content of `moejax.json`; what it has, by (path, layer)."""

    name: str
    info: dict[str, Any]
    loras: dict[SiteKey, Lora]
    bottlenecks: Mapping[SiteKey, Bottleneck] = {}

    @property
    def parts(self) -> dict[SiteKey, Part]:
        """All of it; a linear and a sub-layer are never one site."""
        return {**self.loras, **self.bottlenecks}


def expert_of(name: str, info: dict[str, Any], parts: dict[SiteKey, Part]) -> Expert:
    """The expert that has these parts."""
    loras = {site: part for site, part in parts.items() if isinstance(part, Lora)}
    return Expert(
        name, info, loras, {site: part for site, part in parts.items() if isinstance(part, Bottleneck)}
    )
