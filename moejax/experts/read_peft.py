"""The weights of a PEFT folder: LoRAs by module, each tensor known, targeted, with its partner and of its shape."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from moejax.experts import folder as folders
from moejax.experts import peft_config, peft_names
from moejax.experts.folder import CONFIG, Tensors
from moejax.experts.lora import Lora
from moejax.experts.pattern import limited
from moejax.experts.peft_config import PeftConfig
from moejax.experts.peft_names import LEAVES, Renamed
from moejax.types import UserError

A, B, BIAS = LEAVES


class FoundLoras(NamedTuple):
    """loras: by module of the base; targeted: modules of the base that the config names; zero, ignored: tensors."""

    loras: dict[str, Lora]
    targeted: tuple[str, ...]
    zero: tuple[str, ...]
    ignored: tuple[str, ...] = ()


class Outline(NamedTuple):
    """A LoRA without its factors: what its scale is made of, and whether it has a bias."""

    rank: int
    alpha: float
    rslora: bool
    biased: bool


class Sized(NamedTuple):
    """One module, looked at but not read: its name in the base, tensors by leaf, rank and alpha."""

    module: str
    keys: Mapping[str, str]
    rank: int
    alpha: float


class Keyed(NamedTuple):
    """module of the file -> leaf -> the tensor's name; ignored: names of tensors that were asked to be left aside."""

    modules: dict[str, dict[str, str]]
    ignored: tuple[str, ...]


def read_peft(
    tensors: Tensors, shapes: Mapping[str, tuple[int, int]] | None, config: PeftConfig, file: str
) -> FoundLoras:
    """All LoRAs of an open file; shapes as `read_modules` takes them. Raises UserError naming file and tensor."""
    keyed = _keyed(tensors, config)
    names = peft_names.renamed(keyed.modules, shapes) if shapes is not None else Renamed()
    loras, zero = {}, []
    with limited():
        for sized in _sized(tensors, keyed, names, shapes, config, file):
            one = _lora(tensors, sized, config)
            loras[sized.module] = one
            zero += [sized.keys[leaf] for leaf, factor in ((A, one.a), (B, one.b)) if not factor.any()]
        targeted = tuple(m for m in shapes or () if peft_config.targeted(config, names.in_file(m), file))
    if not any(_does_something(one) for one in loras.values()):
        first = keyed.modules[min(keyed.modules)]
        raise UserError(f"{tensors.path}: every lora_B is zero, {first[B]!r} first: it does nothing")
    return FoundLoras(loras, targeted, tuple(zero), keyed.ignored)


def outlines(
    tensors: Tensors, shapes: Mapping[str, tuple[int, int]], config: PeftConfig, file: str
) -> dict[str, Outline]:
    """What `read_peft` would read, by module of the base, from the file's header: no factor is read.

    Raises UserError as `read_peft` does on names and shapes.
    """
    keyed = _keyed(tensors, config)
    names = peft_names.renamed(keyed.modules, shapes)
    with limited():
        return {
            sized.module: Outline(sized.rank, sized.alpha, config.rslora, BIAS in sized.keys)
            for sized in _sized(tensors, keyed, names, shapes, config, file)
        }


def _does_something(one: Lora) -> bool:
    return bool(one.a.any() and one.b.any()) or (one.bias is not None and bool(one.bias.any()))


def _keyed(tensors: Tensors, config: PeftConfig) -> Keyed:
    """The tensors of an adapter by module. Raises UserError on a name of another kind, met twice, or of a second."""
    found: dict[str, dict[str, str]] = {}
    adapters: dict[str, str] = {}
    ignored = []
    for key in tensors.names:
        if ".." in key or "/" in key or "\\" in key:
            raise UserError(f"{tensors.path}: tensor {key!r} has a path for a name")
        if peft_names.TRAINING in key:
            continue
        if peft_names.saved_whole(key, config.ignored):
            ignored.append(key)
            continue
        named = peft_names.parse(key)
        if named is None:
            raise UserError(
                f"{tensors.path}: unknown tensor {key!r}{peft_names.hint(key)}: "
                f"expected {peft_names.PREFIX}MODULE.{A}"
            )
        module, leaf, adapter = named
        adapters.setdefault(adapter, key)
        if len(adapters) > 1:
            first, second = adapters.values()
            raise UserError(
                f"{tensors.path}: tensors {first!r} and {second!r} are of two adapters: "
                "save each in a folder of its own"
            )
        if leaf in found.setdefault(module, {}):
            raise UserError(
                f"{tensors.path}: tensors {found[module][leaf]!r} and {key!r} are one and the same: keep one"
            )
        found[module][leaf] = key
    if not found:
        raise UserError(f"{tensors.path}: holds no tensor" + (" of a LoRA" if ignored else ""))
    return Keyed(found, tuple(ignored))


def _check(
    tensors: Tensors,
    module: str,
    keys: Mapping[str, str],
    ours: str,
    known: Mapping[str, object] | None,
    config: PeftConfig,
    file: str,
) -> None:
    """Raise UserError unless the module is the base's, is targeted, and has the tensors that it should have."""
    key = next(iter(keys.values()))
    if known is not None and ours not in known:
        near = folders.closest(ours, known)
        raise UserError(f"{tensors.path}: tensor {key!r} is for a module that the base does not have{near}")
    if not peft_config.targeted(config, module, file):
        raise UserError(f"{tensors.path}: tensor {key!r} is for a module that {file} does not target")
    if BIAS in keys and not config.biased:
        raise UserError(f"{tensors.path}: tensor {keys[BIAS]!r} is a bias, but {file} does not set lora_bias")
    for leaf in LEAVES[: 2 + config.biased]:
        if leaf not in keys:
            lacking = f"{peft_names.PREFIX}{module}.{leaf}"
            raise UserError(f"{tensors.path}: tensor {lacking!r} is missing, its partner is there")


def _sized(
    tensors: Tensors,
    keyed: Keyed,
    names: Renamed,
    shapes: Mapping[str, tuple[int, int]] | None,
    config: PeftConfig,
    file: str,
) -> Iterator[Sized]:
    """Every module, checked before anything of it is read; d and f only where they are known."""
    for module in sorted(keyed.modules):
        keys, ours = keyed.modules[module], names.in_base(module)
        _check(tensors, module, keys, ours, shapes, config, file)
        r, alpha = peft_config.rank_and_alpha(config, module, file)
        d, f = (None, None) if shapes is None else shapes[ours]
        _check_shape(tensors, keys[A], (r, d), r)
        _check_shape(tensors, keys[B], (f, r), r)
        if BIAS in keys:
            _check_shape(tensors, keys[BIAS], tensors.shape(keys[B])[:1], r)
        yield Sized(ours, keys, r, alpha)


def _lora(tensors: Tensors, sized: Sized, config: PeftConfig) -> Lora:
    """The factors of a module."""
    a, b, bias = (tensors.read(sized.keys[leaf]) if leaf in sized.keys else None for leaf in LEAVES)
    assert a is not None and b is not None
    return Lora(a, np.ascontiguousarray(b.T), sized.alpha, config.rslora, bias)


def _check_shape(tensors: Tensors, key: str, expected: tuple[int | None, ...], r: int) -> None:
    found = tensors.shape(key)
    fits = (want in (None, size) for size, want in zip(found, expected, strict=False))
    if len(found) != len(expected) or not all(fits) or 0 in found:
        wanted = ", ".join("any" if size is None else str(size) for size in expected)
        raise UserError(
            f"{tensors.path}: tensor {key!r} has shape {list(found)}: expected [{wanted}] with rank {r} by {CONFIG}"
        )
