"""Writing an expert as a folder that PEFT or AdapterHub loads too, or transformers where it is a whole model."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from moejax.experts import folder as folders
from moejax.experts import peft_config, write_adapters, write_delta
from moejax.experts.checkpoint import MODEL, MODEL_CONFIG
from moejax.experts.content_hash import content_hash
from moejax.experts.expert import Expert, SiteKey
from moejax.experts.folder import ADAPTERS_WEIGHTS, CONFIG, INFO, WEIGHTS
from moejax.experts.homes import NOWHERE, Homes
from moejax.experts.lora import Lora, rank, scale
from moejax.experts.peft_names import LEAVES, PREFIX
from moejax.experts.read_delta import assembled, difference
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

    LoRAs as PEFT has them, bottleneck adapters as AdapterHub; differences added to the base, as a whole model in
    `config.json` and `model.safetensors`. fingerprint: of the base, over what `expert.info` says.
    base_name, task_type ("CAUSAL_LM", …): for PEFT. homes: of what is no LoRA.
    Extras of a replaced folder go with it: they belonged to the old weights. Raises UserError on a site that
    the base lacks, a value that is not finite, an alpha that is not above 0, or an expert of several kinds.
    """
    folder = Path(folder)
    folders.check_name(folder.name)
    if not expert.parts and not expert.rest:
        raise UserError(f"expert {expert.name!r} adapts no site: there is nothing to write")
    kinds = (expert.loras, expert.bottlenecks, expert.deltas or expert.rest)
    named = zip(("LoRAs", "bottleneck adapters", "differences"), kinds, strict=True)
    if len(several := [words for words, some in named if some]) > 1:
        raise UserError(f"expert {expert.name!r} has {' and '.join(several)}: write an expert of each")
    home, rest = CONFIG, {}
    if expert.bottlenecks:
        kind, file, config = "bottleneck", ADAPTERS_WEIGHTS, write_adapters.describe(expert, homes)
        parts, tensors = expert.bottlenecks, write_adapters.tensors(by_module(expert, homes), expert.name)
    elif expert.deltas or expert.rest:
        if homes.whole is None:
            raise UserError(
                f"expert {expert.name!r} has differences: its base is needed to write the whole model"
            )
        kind, home, file, config = "delta", MODEL_CONFIG, MODEL, homes.whole.config()
        tensors, whole = write_delta.tensors(expert, homes.whole), homes.whole
        found = assembled(lambda name, leaf: difference(tensors[name], name, leaf, whole), whole)
        parts, rest = {found.at[module]: one for module, one in found.deltas.items()}, found.rest
    else:
        modules = _modules(expert, sites)
        kind, file, config = "lora", WEIGHTS, peft_config.describe(modules, base_name, task_type)
        parts, tensors = {sites[module]: one for module, one in modules.items()}, _tensors(modules)
    info = {"format": FORMAT} | dict.fromkeys(FIELDS) | {"kind": kind} | dict(expert.info)
    if fingerprint is not None:
        info["base"] = fingerprint
    info["hash"] = content_hash(parts, rest)

    def fill(new: Path) -> None:
        folders.write_json(new / home, config)
        folders.write_tensors(new / file, tensors)
        folders.write_json(new / INFO, info)

    folders.write_folder(folder, fill)


def _tensors(modules: Mapping[str, Lora]) -> dict[str, np.ndarray]:
    """PEFT's tensors; it has one flag for all biases, so where some have none these are zeros."""
    found = {}
    biased = any(one.bias is not None for one in modules.values())
    for module, one in modules.items():
        bias = np.zeros(one.b.shape[1], np.float32) if one.bias is None else one.bias
        for leaf, value in zip(LEAVES[: 2 + biased], (one.a, one.b.T, bias), strict=False):
            found[f"{PREFIX}{module}.{leaf}"] = value
    return found


def _modules(expert: Expert, sites: Mapping[str, SiteKey]) -> dict[str, Lora]:
    """The LoRAs by Hugging Face module; PEFT has one rsLoRA flag for all, so mixed ones become plain."""
    names = {site: module for module, site in sites.items()}
    alike = len({one.rslora for one in expert.loras.values()}) == 1
    biased = any(one.bias is not None for one in expert.loras.values())
    modules = {}
    for (path, layer), one in expert.loras.items():
        here = f"expert {expert.name!r} at {path!r}, layer {layer}"
        if (path, layer) not in names:
            raise UserError(f"{here}: the base has no such site")
        leaves = [leaf for leaf in (one.a, one.b, one.bias) if leaf is not None]
        if not (all(np.isfinite(leaf).all() for leaf in leaves) and 0 < one.alpha < np.inf):
            raise UserError(f"{here}: factors must be finite and alpha (here {one.alpha}) above 0")
        if biased and one.bias is None:
            one = one._replace(bias=np.zeros(one.b.shape[1], np.float32))
        modules[names[path, layer]] = (
            one if alike else one._replace(alpha=scale(one) * rank(one), rslora=False)
        )
    return modules
