"""Reading a contributor's folder: everything that could make an expert silently wrong is refused here."""

from collections.abc import Mapping
from math import hypot
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from moejax.experts import folder as folders
from moejax.experts import lora as lora_
from moejax.experts import peft_config
from moejax.experts.content_hash import content_hash
from moejax.experts.expert import Expert, SiteKey
from moejax.experts.folder import CONFIG, INFO, PICKLE, WEIGHTS, Tensors
from moejax.experts.lora import Lora
from moejax.experts.peft_config import PeftConfig
from moejax.experts.report import LoadReport
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


class Found(NamedTuple):
    """What a folder holds, by Hugging Face module: `moejax.json` or what stands for it, the LoRAs, the report."""

    info: dict[str, Any]
    loras: dict[str, Lora]
    report: LoadReport


def read(
    folder: str | Path,
    sites: Mapping[str, SiteKey],
    shapes: Mapping[str, tuple[int, int]],
    fingerprint: str | None,
    allow_base_mismatch: bool = False,
    name: str | None = None,
) -> tuple[Expert, LoadReport]:
    """One expert from its PEFT folder, with what was found.

    sites: Hugging Face module -> (path, layer); shapes: path -> (d, f); fingerprint: of the base to adapt;
    name: of the expert, the folder's own unless given.
    Raises UserError, one sentence naming the file and the tensor or field, on anything that cannot be read as
    exactly the function that PEFT would compute, on damage, and on another base's fingerprint.
    """
    of_modules = {module: shapes[path] for module, (path, _) in sites.items()}
    info, loras, report = read_modules(folder, of_modules, fingerprint, allow_base_mismatch, name)
    expert = Expert(report.name, info, {sites[module]: one for module, one in loras.items()})
    info["hash"] = _hash(Path(folder), expert)
    return expert, report


def own_name(folder: Path) -> str:
    """The name of a folder, of `.` too."""
    return folder.resolve().name if folder.name in ("", ".", "..") else folder.name


def read_modules(
    folder: str | Path,
    shapes: Mapping[str, tuple[int, int]] | None = None,
    fingerprint: str | None = None,
    allow_base_mismatch: bool = False,
    name: str | None = None,
) -> Found:
    """An expert as its folder has it, by Hugging Face module, its recorded hash not compared.

    shapes: Hugging Face module -> (d, f), all that the base has; None: no base is at hand, so any module will do
    and the file's own shapes need only agree with the rank, and no module is known to be unmatched.
    Raises UserError as `read` does.
    """
    folder = Path(folder)
    name = own_name(folder) if name is None else name
    folders.check_name(name)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    file = str(folder / CONFIG)
    config = peft_config.parse(folders.read_json(folder / CONFIG), file)
    info, warnings = _info(folder, fingerprint, allow_base_mismatch)
    _no_pickle(folder)
    with folders.open_tensors(folder / WEIGHTS) as tensors:
        modules = _modules(tensors, shapes, config, file)
        loras = {m: _lora(tensors, m, shapes[m] if shapes else None, config, file) for m in modules}
    zero = tuple(_key(m, i) for m, one in loras.items() for i in range(2) if not (one.a, one.b)[i].any())
    if all(not one.b.any() for one in loras.values()):
        raise UserError(
            f"{folder / WEIGHTS}: every lora_B is zero, {_key(modules[0], 1)!r} first: it does nothing"
        )
    others = sorted((shapes or {}).keys() - loras.keys())
    report = LoadReport(
        name,
        matched=tuple(modules),
        unmatched=tuple(module for module in others if peft_config.targeted(config, module, file)),
        zero=zero,
        scale={module: lora_.scale(one) for module, one in loras.items()},
        norm=hypot(*(lora_.norm(one) for one in loras.values())),
        warnings=warnings,
    )
    return Found(info, loras, report)


def _no_pickle(folder: Path) -> None:
    if not (folder / WEIGHTS).is_file() and (folder / PICKLE).is_file():
        raise UserError(
            f"{folder / PICKLE}: only a pickle, which can run any code when opened: where you trust it, load "
            "and save it with PEFT, PeftModel.from_pretrained(base, folder).save_pretrained(folder), "
            f"which writes {WEIGHTS}"
        )


def _info(folder: Path, fingerprint: str | None, allow: bool) -> tuple[dict[str, Any], tuple[str, ...]]:
    """`moejax.json`, or what stands for it, and warnings about the base."""
    file = folder / INFO
    info = folders.read_json(file) if file.exists() else {}
    if info.setdefault("kind", "lora") != "lora":
        raise UserError(f"{file}: kind is {info['kind']!r}: only 'lora' can be read as a LoRA expert")
    recorded = info.get("base")
    if recorded is None:
        return info, (f"{folder}: no base fingerprint is recorded: check that it was trained on this base",)
    if not isinstance(recorded, str):
        raise UserError(f"{file}: base is {recorded!r}: expected a fingerprint")
    if fingerprint is None or recorded == fingerprint:
        return info, ()
    what = f"{file}: trained on base {recorded}, not on {fingerprint}"
    if not allow:
        raise UserError(f"{what}: use its own base, or --allow-base-mismatch if you know better")
    return info, (what,)


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


def _hash(folder: Path, expert: Expert) -> str:
    digest, recorded = content_hash(expert.loras), expert.info.get("hash")
    if recorded is not None and recorded != digest:
        raise UserError(
            f"{folder / WEIGHTS}: its content is not what {INFO} recorded as `hash`: get the folder again, "
            "or remove `hash` if you changed the weights yourself"
        )
    return digest
