"""Writing an expert as a folder that PEFT or AdapterHub loads too."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from moejax.experts import folder as folders
from moejax.experts import peft_config, write_adapters
from moejax.experts.content_hash import content_hash
from moejax.experts.expert import Expert, SiteKey
from moejax.experts.folder import ADAPTERS_WEIGHTS, CONFIG, INFO, WEIGHTS
from moejax.experts.homes import NOWHERE, Homes
from moejax.experts.lora import Lora, rank, scale
from moejax.experts.read_peft import FACTORS, PREFIX
from moejax.experts.write_adapters import by_module
from moejax.types import UserError

FORMAT = 1
FIELDS = ("kind", "task", "description", "base", "licence", "provenance", "price", "init", "hash", "scores")


def write(
    folder: str | Path,
    expert: Expert,
    sites: Mapping[str, SiteKey],
    *,
    fingerprint: str | None = None,
    base_name: str | None = None,
    task_type: str | None = None,
    homes: Homes = NOWHERE,
) -> None:
    """Make or replace an expert's folder in one step: `adapter_config.json`, the weights, `moejax.json`.

    LoRAs as PEFT has them, bottleneck adapters as AdapterHub. fingerprint: of the base, over what `expert.info` says.
    base_name, task_type ("CAUSAL_LM", …): for PEFT. homes: of the base's bottleneck adapters.
    Extras of a replaced folder go with it: they belonged to the old weights. Raises UserError on a site that
    the base lacks, a value that is not finite, an alpha that is not above 0, or an expert of both kinds.
    """
    folder = Path(folder)
    folders.check_name(folder.name)
    if not expert.parts:
        raise UserError(f"expert {expert.name!r} adapts no site: there is nothing to write")
    if expert.loras and expert.bottlenecks:
        raise UserError(f"expert {expert.name!r} has LoRAs and bottleneck adapters: write an expert of each")
    if expert.bottlenecks:
        kind, file, config = "bottleneck", ADAPTERS_WEIGHTS, write_adapters.describe(expert, homes)
        parts, tensors = expert.bottlenecks, write_adapters.tensors(by_module(expert, homes), expert.name)
    else:
        modules = _modules(expert, sites)
        kind, file, config = "lora", WEIGHTS, peft_config.describe(modules, base_name, task_type)
        parts, tensors = {sites[module]: one for module, one in modules.items()}, _tensors(modules)
    info = {"format": FORMAT} | dict.fromkeys(FIELDS) | {"kind": kind} | dict(expert.info)
    if fingerprint is not None:
        info["base"] = fingerprint
    info["hash"] = content_hash(parts)

    def fill(new: Path) -> None:
        folders.write_json(new / CONFIG, config)
        folders.write_tensors(new / file, tensors)
        folders.write_json(new / INFO, info)

    folders.write_folder(folder, fill)


def _tensors(modules: Mapping[str, Lora]) -> dict[str, np.ndarray]:
    found = {}
    for module, one in modules.items():
        for factor, value in zip(FACTORS, (one.a, one.b.T), strict=True):
            found[PREFIX + module + factor] = value
    return found


def _modules(expert: Expert, sites: Mapping[str, SiteKey]) -> dict[str, Lora]:
    """The LoRAs by Hugging Face module; PEFT has one rsLoRA flag for all, so mixed ones become plain."""
    names = {site: module for module, site in sites.items()}
    alike = len({one.rslora for one in expert.loras.values()}) == 1
    modules = {}
    for (path, layer), one in expert.loras.items():
        here = f"expert {expert.name!r} at {path!r}, layer {layer}"
        if (path, layer) not in names:
            raise UserError(f"{here}: the base has no such site")
        if not (np.isfinite(one.a).all() and np.isfinite(one.b).all() and 0 < one.alpha < np.inf):
            raise UserError(f"{here}: factors must be finite and alpha (here {one.alpha}) above 0")
        modules[names[path, layer]] = (
            one if alike else one._replace(alpha=scale(one) * rank(one), rslora=False)
        )
    return modules
