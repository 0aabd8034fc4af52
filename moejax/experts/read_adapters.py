"""The weights of an AdapterHub folder: bottleneck adapters by module, each tensor known, expected and of its shape."""

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from moejax.experts import adapters_config
from moejax.experts.adapters_config import AdaptersConfig
from moejax.experts.bottleneck import Bottleneck
from moejax.experts.expert import SiteKey
from moejax.experts.folder import CONFIG, Tensors, closest
from moejax.experts.homes import JOIN, Homes, without_wrapper
from moejax.types import UserError

TENSORS = ("adapter_down.0.weight", "adapter_down.0.bias", "adapter_up.weight", "adapter_up.bias")
KEY = re.compile(
    r"(?P<module>.+)\.adapters\.(?P<name>[^.]+)\.(?P<tensor>adapter_(?:down\.0|up)\.(?:weight|bias))"
)
LAYER = re.compile(r"(?<=\.)\d+(?=\.)")  # the layer's number in a module's name


class FoundAdapters(NamedTuple):
    """adapters: by module as the base names it; targeted: modules that the config says have one; zero: tensors."""

    adapters: dict[str, Bottleneck]
    targeted: tuple[str, ...]
    zero: tuple[str, ...]


def site(module: str, config: AdaptersConfig, homes: Homes) -> SiteKey:
    """The site of a module's adapter: the sub-layer, or its join."""
    path, layer = homes.modules[module]
    return path + JOIN * config.at_join, layer


def read_adapters(tensors: Tensors, config: AdaptersConfig, homes: Homes | None, file: str) -> FoundAdapters:
    """All adapters of an open file; homes None: no base is at hand, so any module will do.

    Raises UserError naming the file and the tensor.
    """
    keys = _keys(tensors, config, homes, file)
    adapters = {module: _adapter(tensors, keys[module], config, homes, file) for module in sorted(keys)}
    zero = tuple(
        keys[module]["adapter_up.weight"]
        for module, one in adapters.items()
        if not one.b.any() and not one.b_bias.any()
    )
    if len(zero) == len(adapters):
        raise UserError(f"{tensors.path}: every adapter_up is zero, {zero[0]!r} first: it does nothing")
    known = {} if homes is None else homes.modules
    targeted = tuple(m for m, (path, layer) in known.items() if _targets(config, path, layer))
    return FoundAdapters(adapters, targeted, zero)


def _targets(config: AdaptersConfig, path: str, layer: int) -> bool:
    return path in config.sublayers and layer not in config.leave_out


def _keys(
    tensors: Tensors, config: AdaptersConfig, homes: Homes | None, file: str
) -> dict[str, dict[str, str]]:
    """module -> tensor -> its key in the file, all four of each."""
    found: dict[str, dict[str, str]] = {}
    known: Mapping[str, SiteKey] = {} if homes is None else homes.modules
    for key in tensors.names:
        match = KEY.fullmatch(key)
        if match is None or "/" in key or "\\" in key or ".." in key:
            raise UserError(
                f"{tensors.path}: unknown tensor {key!r}: expected MODULE.adapters.NAME.{TENSORS[0]}"
            )
        if match["name"] != config.name:
            other = f"adapter {match['name']!r}, but {file} is of {config.name!r}"
            raise UserError(f"{tensors.path}: tensor {key!r} is of {other}")
        module = without_wrapper(match["module"], known)
        if homes is not None and module not in known:
            near = closest(module, known)
            raise UserError(
                f"{tensors.path}: tensor {key!r} is for a module that the base does not have{near}"
            )
        if homes is not None and not _targets(config, *known[module]):
            raise UserError(f"{tensors.path}: tensor {key!r} is for a module where {file} has no adapter")
        if key != found.setdefault(module, {}).setdefault(match["tensor"], key):
            raise UserError(f"{tensors.path}: tensor {key!r} is there twice, under another prefix")
    for module, some in found.items():
        for tensor in TENSORS:
            if tensor not in some:
                raise UserError(
                    f"{tensors.path}: tensor {f'{module}.adapters.{config.name}.{tensor}'!r} is missing, others of "
                    "its adapter are there"
                )
    if not found:
        raise UserError(f"{tensors.path}: holds no tensor")
    return found


def _adapter(
    tensors: Tensors, keys: Mapping[str, str], config: AdaptersConfig, homes: Homes | None, file: str
) -> Bottleneck:
    """One adapter; shapes are checked before anything is read, by the width of the base or of the file itself."""
    whole = tensors.shape(keys[TENSORS[0]])
    d = homes.d if homes is not None else whole[-1] if whole else 0
    number = LAYER.search(keys[TENSORS[0]])
    r = adapters_config.rank(config, int(number[0]) if number else 0, d, file)
    for tensor, expected in zip(TENSORS, [(r, d), (r,), (d, r), (d,)], strict=True):
        found = tensors.shape(keys[tensor])
        if found != expected:
            raise UserError(
                f"{tensors.path}: tensor {keys[tensor]!r} has shape {list(found)}: expected {list(expected)} by the "
                f"base and the reduction_factor of {CONFIG}"
            )
    a, a_bias, up, b_bias = (tensors.read(keys[tensor]) for tensor in TENSORS)
    return Bottleneck(a, a_bias, np.ascontiguousarray(up.T), b_bias, config.act, config.scale)
