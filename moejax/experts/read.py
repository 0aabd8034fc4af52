"""Reading a contributor's folder: everything that could make an expert silently wrong is refused here."""

from collections.abc import Mapping
from math import hypot, nan
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from moejax.experts import adapters_config, checkpoint, part, peft_config
from moejax.experts import folder as folders
from moejax.experts.adapters_config import is_adapters
from moejax.experts.checkpoint import MODEL_CONFIG
from moejax.experts.content_hash import content_hash
from moejax.experts.expert import Expert, SiteKey, expert_of
from moejax.experts.folder import ADAPTERS_PICKLE, ADAPTERS_WEIGHTS, CONFIG, INFO, PICKLE, WEIGHTS
from moejax.experts.homes import NOWHERE, Homes
from moejax.experts.part import Part
from moejax.experts.read_adapters import read_adapters, site
from moejax.experts.read_delta import read_delta
from moejax.experts.read_peft import read_peft
from moejax.experts.report import LoadReport
from moejax.types import UserError

NAMED = {"lora": "a LoRA expert", "bottleneck": "a bottleneck expert", "delta": "a whole checkpoint"}
BY_PEFT = (
    "where you trust it, load and save it with PEFT, PeftModel.from_pretrained(base, folder).save_pretrained(folder), "
    f"which writes {WEIGHTS}"
)
BY_ADAPTERS = (
    'where torch is installed, say python -c "import torch, safetensors.torch as s; '
    "s.save_file(torch.load('{pickle}', weights_only=True), '{weights}')\", which opens it as tensors alone"
)


class Found(NamedTuple):
    """What a folder holds, by Hugging Face module: `moejax.json` or what stands for it, the parts, the report."""

    info: dict[str, Any]
    parts: Mapping[str, Part]
    report: LoadReport
    sites: Mapping[str, SiteKey] = {}  # of what is no LoRA: where in the base it stands
    rest: Mapping[str, np.ndarray] = {}  # of a checkpoint: what differs outside the layers


def read(
    folder: str | Path,
    sites: Mapping[str, SiteKey],
    shapes: Mapping[str, tuple[int, int]],
    fingerprint: str | None,
    allow_base_mismatch: bool = False,
    name: str | None = None,
    homes: Homes = NOWHERE,
    ignore_saved: bool = False,
) -> tuple[Expert, LoadReport]:
    """One expert from a folder that PEFT or AdapterHub wrote, or a whole fine-tuned model, with what was found.

    sites: Hugging Face module -> (path, layer); shapes: path -> (d, f); fingerprint: of the base to adapt;
    name: of the expert, the folder's own unless given; homes: of what is no LoRA; ignore_saved: take the LoRAs of a
    folder that holds whole trained modules too, and leave those aside.
    Raises UserError, one sentence naming the file and the tensor or field, on anything that cannot be read as
    exactly the function that its library would compute, on damage, and on another base's fingerprint.
    """
    of_modules = {module: shapes[path] for module, (path, _) in sites.items()}
    found = read_modules(folder, of_modules, fingerprint, allow_base_mismatch, name, homes, ignore_saved)
    info, report, at = found.info, found.report, found.sites or sites
    expert = expert_of(
        report.name, info, {at[module]: one for module, one in found.parts.items()}, found.rest
    )
    verified = info.get("hash") is not None
    info["hash"] = _hash(report.file, expert)
    return expert, report._replace(hash=info["hash"], verified=verified)


def own_name(folder: Path) -> str:
    """The name of a folder, of `.` too."""
    return folder.resolve().name if folder.name in ("", ".", "..") else folder.name


def read_modules(
    folder: str | Path,
    shapes: Mapping[str, tuple[int, int]] | None = None,
    fingerprint: str | None = None,
    allow_base_mismatch: bool = False,
    name: str | None = None,
    homes: Homes | None = None,
    ignore_saved: bool = False,
) -> Found:
    """An expert as its folder has it, by Hugging Face module, its recorded hash not compared.

    shapes: Hugging Face module -> (d, f), all that the base has; None: no base is at hand, so any module will do
    and the file's own shapes need only agree with the rank, and no module is known to be unmatched; homes likewise.
    Raises UserError as `read` does.
    """
    folder = Path(folder)
    name = own_name(folder) if name is None else name
    folders.check_name(name)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    if not (folder / CONFIG).exists() and (folder / MODEL_CONFIG).exists():
        return _of_checkpoint(folder, fingerprint, allow_base_mismatch, name, homes)
    raw = folders.read_json(folder / CONFIG)
    if is_adapters(raw):
        return _of_adapters(folder, raw, fingerprint, allow_base_mismatch, name, homes)
    return _of_peft(folder, raw, shapes, fingerprint, allow_base_mismatch, name, ignore_saved)


def _of_peft(
    folder: Path, raw: Mapping[str, Any], shapes: Any, fingerprint: Any, allow: bool, name: str, ignore: bool
) -> Found:
    file, weights = str(folder / CONFIG), folder / WEIGHTS
    config = peft_config.parse(raw, file, ignore)
    info, warnings = info_of(folder, "lora", fingerprint, allow)
    no_pickle(weights, folder / PICKLE, BY_PEFT)
    with folders.open_tensors(weights) as tensors:
        loras, targeted, zero, ignored = read_peft(tensors, shapes, config, file)
    if ignored:
        said = f"{weights}: {len(ignored)} tensors of modules saved whole are left aside, {ignored[0]} first"
        warnings = (*warnings, said)
    return Found(info, loras, _report(name, weights, loras, targeted, zero, warnings))


def _of_adapters(
    folder: Path, raw: Mapping[str, Any], fingerprint: Any, allow: bool, name: str, homes: Homes | None
) -> Found:
    file, weights = str(folder / CONFIG), folder / ADAPTERS_WEIGHTS
    config = adapters_config.parse(raw, file)
    info, warnings = info_of(folder, "bottleneck", fingerprint, allow)
    no_pickle(weights, folder / ADAPTERS_PICKLE, BY_ADAPTERS)
    with folders.open_tensors(weights) as tensors:
        adapters, targeted, zero = read_adapters(tensors, config, homes, file)
    at = {} if homes is None else {module: site(module, config, homes) for module in adapters}
    return Found(info, adapters, _report(name, weights, adapters, targeted, zero, warnings), at)


def _of_checkpoint(folder: Path, fingerprint: Any, allow: bool, name: str, homes: Homes | None) -> Found:
    """A whole model; without a base at hand nothing can be said of its difference."""
    info, warnings = info_of(folder, "delta", fingerprint, allow)
    file = checkpoint.files(folder)[0]
    if homes is None or homes.whole is None:
        modules = {tensor.rpartition(".")[0] for tensor in checkpoint.stored(folder)}
        said = f"{folder}: a whole checkpoint: what it changes can be told with --base only"
        report = LoadReport(
            name, tuple(sorted(modules)), (), (), {}, nan, warnings=(*warnings, said), file=file, kind="delta"
        )
        return Found(info, {}, report)
    deltas, at, rest, other = read_delta(folder, homes.whole)
    if other:
        said = f"{folder}: {len(other)} tensors that the base does not have are left aside, {other[0]} first"
        warnings = (*warnings, said)
    report = _report(name, file, deltas, (), (), warnings)
    size = hypot(report.norm, *(float(np.linalg.norm(change)) for change in rest.values()))
    matched = (*report.matched, *sorted(rest))
    return Found(info, deltas, report._replace(matched=matched, norm=size, kind="delta"), at, rest)


def _report(
    name: str,
    file: Path,
    parts: Mapping[str, Part],
    targeted: tuple[str, ...],
    zero: tuple[str, ...],
    warnings: tuple[str, ...],
) -> LoadReport:
    return LoadReport(
        name,
        matched=tuple(parts),
        unmatched=tuple(module for module in sorted(targeted) if module not in parts),
        zero=zero,
        scale={module: part.scale(one) for module, one in parts.items()},
        norm=hypot(*(part.norm(one) for one in parts.values())),
        warnings=warnings,
        file=file,
    )


def no_pickle(weights: Path, pickle: Path, advice: str) -> None:
    """Raise UserError where there is a pickle in place of the weights."""
    if not weights.is_file() and pickle.is_file():
        said = advice.format(pickle=pickle, weights=weights)
        raise UserError(f"{pickle}: only a pickle, which can run any code when opened: {said}")


def info_of(
    folder: Path, kind: str, fingerprint: str | None, allow: bool
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """`moejax.json`, or what stands for it, and warnings about the base. Raises UserError on another kind or base."""
    file = folder / INFO
    info = folders.read_json(file) if file.exists() else {}
    if info.setdefault("kind", kind) != kind:
        raise UserError(
            f"{file}: kind is {folders.shown(info['kind'])}: only {kind!r} can be read as {NAMED[kind]}"
        )
    recorded = info.get("base")
    if recorded is None:
        return info, (f"{folder}: no base fingerprint is recorded: check that it was trained on this base",)
    if not isinstance(recorded, str):
        raise UserError(f"{file}: base is {folders.shown(recorded)}: expected a fingerprint")
    if fingerprint is None or recorded == fingerprint:
        return info, ()
    what = f"{file}: trained on base {recorded[:100]}, not on {fingerprint}"
    if not allow:
        raise UserError(f"{what}: use its own base, or --allow-base-mismatch if you know better")
    return info, (what,)


def _hash(weights: Path, expert: Expert) -> str:
    digest, recorded = content_hash(expert.parts, expert.rest), expert.info.get("hash")
    if recorded is not None and recorded != digest:
        raise UserError(
            f"{weights}: its content is not what {INFO} recorded as `hash`: get the folder again, "
            "or remove `hash` if you changed the weights yourself"
        )
    return digest
