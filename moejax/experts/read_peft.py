"""The weights of a PEFT folder: LoRAs by module, each tensor known, targeted, with its partner and of its shape."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from moejax.experts import folder as folders
from moejax.experts import peft_config
from moejax.experts.folder import CONFIG, Tensors
from moejax.experts.lora import Lora
from moejax.experts.peft_config import PeftConfig
from moejax.types import UserError

PREFIX = "base_model.model."
FACTORS = (".lora_A.weight", ".lora_B.weight")
HINTS = {  # part of a key -> what such a tensor is
    "lora_magnitude_vector": "DoRA's magnitudes",
    "lora_embedding": "a LoRA on an embedding",
    "modules_to_save": "a whole trained module",
    "lora_bias": "a bias inside the LoRA",
    ".lora_A.": "a LoRA under another layout",
    ".lora_B.": "a LoRA under another layout",
    ".bias": "a trained bias",
}


class FoundLoras(NamedTuple):
    """loras: by module; targeted: modules of the base that the config names; zero: tensors."""

    loras: dict[str, Lora]
    targeted: tuple[str, ...]
    zero: tuple[str, ...]


def read_peft(
    tensors: Tensors, shapes: Mapping[str, tuple[int, int]] | None, config: PeftConfig, file: str
) -> FoundLoras:
    """All LoRAs of an open file; shapes as `read_modules` takes them. Raises UserError naming file and tensor."""
    modules = _modules(tensors, shapes, config, file)
    loras = {m: _lora(tensors, m, shapes[m] if shapes else None, config, file) for m in modules}
    zero = tuple(_key(m, i) for m, one in loras.items() for i in range(2) if not (one.a, one.b)[i].any())
    if all(not one.b.any() for one in loras.values()):
        raise UserError(
            f"{tensors.path}: every lora_B is zero, {_key(modules[0], 1)!r} first: it does nothing"
        )
    targeted = tuple(module for module in shapes or () if peft_config.targeted(config, module, file))
    return FoundLoras(loras, targeted, zero)


def _modules(
    tensors: Tensors, known: Mapping[str, Any] | None, config: PeftConfig, file: str
) -> tuple[str, ...]:
    """The modules that the file adapts, in sorted order, each with both factors."""
    found: dict[str, set[str]] = {}
    for key in tensors.names:
        if ".." in key or "/" in key or "\\" in key:
            raise UserError(f"{tensors.path}: tensor {key!r} has a path for a name")
        factor = next((f for f in FACTORS if key.endswith(f)), "")
        module = key[len(PREFIX) : -len(factor)] if factor and key.startswith(PREFIX) else ""
        if not module:
            hint = next((f" ({what})" for part, what in HINTS.items() if part in key), "")
            raise UserError(
                f"{tensors.path}: unknown tensor {key!r}{hint}: expected {PREFIX}MODULE{FACTORS[0]}"
            )
        if known is not None and module not in known:
            near = folders.closest(module, known)
            raise UserError(
                f"{tensors.path}: tensor {key!r} is for a module that the base does not have{near}"
            )
        if not peft_config.targeted(config, module, file):
            raise UserError(f"{tensors.path}: tensor {key!r} is for a module that {file} does not target")
        found.setdefault(module, set()).add(factor)
    for module, factors in found.items():
        for i, factor in enumerate(FACTORS):
            if factor not in factors:
                raise UserError(
                    f"{tensors.path}: tensor {_key(module, i)!r} is missing, its partner is there"
                )
    if not found:
        raise UserError(f"{tensors.path}: holds no tensor")
    return tuple(sorted(found))


def _key(module: str, i: int) -> str:
    return PREFIX + module + FACTORS[i]


def _lora(
    tensors: Tensors, module: str, shape: tuple[int, int] | None, config: PeftConfig, file: str
) -> Lora:
    """The factors of a module; shapes are checked before anything is read, d and f only where they are known."""
    r, alpha = peft_config.rank_and_alpha(config, module, file)
    d, f = shape or ("any", "any")
    for i, expected in enumerate([(r, d), (f, r)]):
        found = tensors.shape(_key(module, i))
        fits = (want in ("any", size) for size, want in zip(found, expected, strict=False))
        if len(found) != 2 or not all(fits):
            raise UserError(
                f"{tensors.path}: tensor {_key(module, i)!r} has shape {list(found)}: "
                f"expected [{', '.join(map(str, expected))}] with rank {r} by {CONFIG}"
            )
    a, b = (tensors.read(_key(module, i)) for i in range(2))
    return Lora(a, np.ascontiguousarray(b.T), alpha, config.rslora)
