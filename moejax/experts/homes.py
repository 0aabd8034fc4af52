"""Where a base keeps what is no LoRA: AdapterHub's modules for bottleneck adapters, and its own tensors."""

from collections.abc import Mapping
from typing import NamedTuple

from moejax.experts.expert import SiteKey
from moejax.experts.whole import Whole

JOIN = "_join"  # what the path of a sub-layer's join has behind that of the sub-layer


class Homes(NamedTuple):
    """modules: AdapterHub's module -> (path of the sub-layer, layer); d: the base's width; whole: all its tensors."""

    modules: Mapping[str, SiteKey] = {}
    d: int = 0
    whole: Whole | None = None


NOWHERE = Homes()
"""Of a base of which nothing is said."""


def without_wrapper(module: str, known: Mapping[str, SiteKey]) -> str:
    """A module's name in the bare base: without the attribute under which a model with a head keeps it ("bert.")."""
    head, _, rest = module.partition(".")
    return rest if module not in known and rest in known and head else module
