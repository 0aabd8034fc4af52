"""`adapter_config.json`: which modules a PEFT LoRA folder adapts, with which rank and alpha."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from moejax.experts.folder import shown
from moejax.experts.lora import Lora, rank
from moejax.experts.pattern import ends_with, fullmatch
from moejax.experts.peft_fields import EMPTY, PLAIN_INIT, REFUSED, USED, WITHOUT_MEANING
from moejax.types import UserError

MOST_PATTERNS = 4096  # each is tried on each module
SAVED = "modules_to_save"
MOST, LEAST = 1e30, 1e-30  # of an alpha, so that no scale is 0 or infinite in float32
Names = str | tuple[str, ...]


class PeftConfig(NamedTuple):
    """What of the config says which function the weights are.

    biased: whether each LoRA has a bias; ignored: modules that were saved whole, which the user asked to leave aside.
    """

    r: int
    alpha: float
    rslora: bool
    ranks: dict[str, int]
    alphas: dict[str, float]
    targets: Names
    excluded: Names
    layers: tuple[int, ...]
    layer_names: tuple[str, ...]
    base: str | None
    biased: bool = False
    ignored: tuple[str, ...] = ()


def parse(raw: Mapping[str, Any], file: str, ignore_saved: bool = False) -> PeftConfig:
    """Check a parsed config; ignore_saved: pass over `modules_to_save`. Raises UserError naming file and field."""
    _refuse(raw, file, ignore_saved)
    wants = Wants(raw, file)
    saved = wants.names(SAVED) if ignore_saved else ()
    targets = wants.names("target_modules")
    layers = raw.get("layers_to_transform")
    layers = [layers] if isinstance(layers, int) and not isinstance(layers, bool) else layers or []
    if not isinstance(layers, list) or not all(type(layer) is int for layer in layers):
        raise UserError(
            f"{file}: layers_to_transform must be a number or a list of numbers, not {shown(layers)}"
        )
    if not targets:
        raise UserError(f"{file}: target_modules is missing: list the modules that the weights are for")
    if isinstance(targets, str) and layers:
        raise UserError(
            f"{file}: layers_to_transform needs target_modules as a list, not the string {shown(targets)}"
        )
    layer_names = wants.names("layers_pattern")
    layer_names = (layer_names,) if isinstance(layer_names, str) else layer_names
    for name in layer_names:
        if not re.fullmatch(r"[\w.]+", name):
            raise UserError(f"{file}: layers_pattern {shown(name)} is not the name of a module list")
    return PeftConfig(
        wants.rank("r", raw.get("r", 8)),
        wants.alpha("lora_alpha", raw.get("lora_alpha", 8)),
        wants.flag("use_rslora"),
        {key: wants.rank(f"rank_pattern[{shown(key)}]", value) for key, value in wants.table("rank_pattern")},
        {
            key: wants.alpha(f"alpha_pattern[{shown(key)}]", value)
            for key, value in wants.table("alpha_pattern")
        },
        targets,
        wants.names("exclude_modules"),
        tuple(layers),
        layer_names,
        raw.get("base_model_name_or_path") or None,
        wants.flag("lora_bias"),
        (saved,) if isinstance(saved, str) else saved,
    )


def _refuse(raw: Mapping[str, Any], file: str, ignore_saved: bool) -> None:
    if raw.get("peft_type") != "LORA":
        raise UserError(f"{file}: peft_type is {shown(raw.get('peft_type'))}: only 'LORA' can be read")
    for field, what in REFUSED.items():
        if raw.get(field) not in EMPTY and not (field == SAVED and ignore_saved):
            advice = "train the expert without it"
            if field == SAVED:
                advice += ", or say --ignore-saved-modules to take its LoRAs without them"
            raise UserError(f"{file}: {field} is set: {what} cannot be read; {advice}")
    init = raw.get("init_lora_weights", True)
    if (init.lower() if isinstance(init, str) else init) not in PLAIN_INIT:
        raise UserError(
            f"{file}: init_lora_weights is {shown(init)}, which changes the base's own weights: "
            "convert the adapter to a plain LoRA with PEFT's path_initial_model_for_weight_conversion"
        )
    for field in sorted(set(raw) - USED - WITHOUT_MEANING - set(REFUSED)):
        if raw[field] not in EMPTY:
            raise UserError(
                f"{file}: the field {shown(field)} is not known here and may change what the weights mean"
            )


class Wants(NamedTuple):
    """Typed reads of a config; each raises UserError naming the file and the field."""

    raw: Mapping[str, Any]
    file: str

    def rank(self, field: str, value: Any) -> int:
        """A positive whole number."""
        if type(value) is not int or value < 1:
            raise UserError(
                f"{self.file}: {field} is {shown(value)}: a rank must be a whole number of at least 1"
            )
        return value

    def alpha(self, field: str, value: Any) -> float:
        """A positive number of which float32 can make a scale."""
        if type(value) not in (int, float) or not LEAST <= value <= MOST:
            raise UserError(
                f"{self.file}: {field} is {shown(value)}: an alpha must be a number above 0, from {LEAST:g} to {MOST:g}"
            )
        return float(value)

    def flag(self, field: str) -> bool:
        """true, false or null."""
        value = self.raw.get(field) or False
        if not isinstance(value, bool):
            raise UserError(f"{self.file}: {field} is {shown(value)}: expected true or false")
        return value

    def table(self, field: str) -> list[tuple[str, Any]]:
        """The items of an object."""
        value = self.raw.get(field) or {}
        if not isinstance(value, dict):
            raise UserError(f"{self.file}: {field} must be an object of module patterns, not {shown(value)}")
        if len(value) > MOST_PATTERNS:
            raise UserError(
                f"{self.file}: {field} holds {len(value)} patterns: at most {MOST_PATTERNS} are read"
            )
        return list(value.items())

    def names(self, field: str) -> Names:
        """A pattern, or a tuple of names."""
        value = self.raw.get(field) or ()
        if isinstance(value, str):
            return value
        if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
            raise UserError(f"{self.file}: {field} must be a string or a list of strings, not {shown(value)}")
        return tuple(value)


def targeted(config: PeftConfig, module: str, file: str) -> bool:
    """Whether PEFT would put this LoRA on the module. Raises UserError on a pattern beyond `pattern.py`."""
    if config.excluded and _named(config.excluded, module, file):
        return False
    if any(f".{saved}." in f".{module}." for saved in config.ignored):
        return False
    if isinstance(config.targets, str):
        return config.targets.lower() == "all-linear" or _matches(config.targets, module, file)
    if module in config.targets:
        return True
    return _named(config.targets, module, file) and (
        not config.layers or _layer(config, module) in config.layers
    )


def _named(names: Names, module: str, file: str) -> bool:
    if isinstance(names, str):
        return _matches(names, module, file)
    return any(module == name or module.endswith(f".{name}") for name in names)


def _layer(config: PeftConfig, module: str) -> int | None:
    """The first numbered segment, after one of the module lists where they are named."""
    starts = [rf"(?:^|.*?\.){re.escape(name)}" for name in config.layer_names] or [r".*?\.[^.]*"]
    found = (re.match(start + r"\.(\d+)\.", module) for start in starts)
    return next((int(match[1]) for match in found if match), None)


def rank_and_alpha(config: PeftConfig, module: str, file: str) -> tuple[int, float]:
    """The module's own, by the first pattern whose end matches its name, else the config's."""
    r = next((r for key, r in config.ranks.items() if _ends(key, module, file)), config.r)
    return r, next((alpha for key, alpha in config.alphas.items() if _ends(key, module, file)), config.alpha)


def _ends(key: str, module: str, file: str) -> bool:
    return _matches(key, module, file, ends_with)


def _matches(pattern: str, module: str, file: str, match: Callable[[str, str], bool] = fullmatch) -> bool:
    try:
        return match(pattern, module)
    except ValueError as error:
        raise UserError(f"{file}: the pattern {shown(pattern)} {error}") from None


def describe(modules: Mapping[str, Lora], base: str | None, task_type: str | None) -> dict[str, Any]:
    """The config of LoRAs by module name: the commonest rank and alpha, patterns for the others."""
    rslora = all(one.rslora for one in modules.values())
    biased = any(one.bias is not None for one in modules.values())
    r = Counter(map(rank, modules.values())).most_common(1)[0][0]
    alpha = Counter(one.alpha for one in modules.values()).most_common(1)[0][0]
    names = {module: "^" + re.escape(module) for module in sorted(modules)}
    return {
        "peft_type": "LORA",
        "task_type": task_type,
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": r,
        "lora_alpha": _plain(alpha),
        "use_rslora": rslora,
        **({"lora_bias": True} if biased else {}),  # which older versions of PEFT do not know
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "target_modules": list(names),
        "rank_pattern": {names[m]: rank(one) for m, one in sorted(modules.items()) if rank(one) != r},
        "alpha_pattern": {
            names[m]: _plain(one.alpha) for m, one in sorted(modules.items()) if one.alpha != alpha
        },
    }


def _plain(alpha: float) -> int | float:
    return int(alpha) if alpha == int(alpha) else alpha
