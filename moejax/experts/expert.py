"""One contributor's expert: its name, what it says of itself, and its LoRAs."""

from typing import Any, NamedTuple

from moejax.experts.lora import Lora

SiteKey = tuple[str, int]  # (path, layer)


class Expert(NamedTuple):
    """name: the folder's or the user's own; info: the content of `moejax.json`; loras: by (path, layer)."""

    name: str
    info: dict[str, Any]
    loras: dict[SiteKey, Lora]
