"""Positions of a Hugging Face config: rotary settings, and which layers see a window; and back."""

from typing import Any

from moejax.models.decoder import DecoderConfig
from moejax.models.families import Family
from moejax.models.rotary import Rotary
from moejax.types import UserError

_STRETCH = {
    "factor": "factor", "low": "low_freq_factor", "high": "high_freq_factor",
    "original": "original_max_position_embeddings",
}  # fmt: skip
_ROTARY_KEYS = {"default": (), "linear": ("factor",), "llama3": tuple(_STRETCH)}
_LOCAL, _FULL = "sliding_attention", "full_attention"
MOST_LAYERS = 10_000  # of a pattern of windows


def is_number(value: Any) -> bool:
    """A number above 0 that float32 holds."""
    return type(value) in (int, float) and 0 < value < 1e30


def rotary(hf: dict[str, Any], source: str, family: Family) -> tuple[Rotary, Rotary | None]:
    """Rotary settings, from `rope_parameters` or from the older `rope_theta` and `rope_scaling`.

    The second are those of layers with a window, None where the family makes no difference.
    Raises UserError for a type that is not known here, and for numbers that make no sense.
    """
    key = "rope_parameters" if hf.get("rope_parameters") else "rope_scaling"
    given = hf.get(key) or {}
    if not isinstance(given, dict):
        raise UserError(f"{source}: {key} is {given!r}; expected an object")
    theta, local = family.thetas
    if local is None:
        return _rotary(given, hf.get("rope_theta", theta), hf, source, family), None
    nested = _LOCAL in given or _FULL in given
    parts = [given.get(_FULL) or {}, given.get(_LOCAL) or {}] if nested else [given, {}]
    if not all(isinstance(part, dict) for part in parts):
        raise UserError(f"{source}: {key} holds no objects for {_FULL} and {_LOCAL}")
    bases = hf.get("rope_theta", theta), hf.get("rope_local_base_freq", local)
    full, near = (_rotary(part, base, hf, source, family) for part, base in zip(parts, bases, strict=True))
    return full, near


def _rotary(given: dict[str, Any], theta: Any, hf: dict[str, Any], source: str, family: Family) -> Rotary:
    kind = given.get("rope_type", given.get("type", "default"))
    if not isinstance(kind, str) or kind not in _ROTARY_KEYS:
        raise UserError(
            f"{source}: rotary type {kind!r} is not known here; expected one of {', '.join(_ROTARY_KEYS)}"
        )
    numbers = {"rope_theta": theta} | given
    for name in ("rope_theta", *(_STRETCH[ours] for ours in _ROTARY_KEYS[kind])):
        if not is_number(numbers.get(name)):
            raise UserError(f"{source}: rotary type {kind!r} needs a number above 0 under {name}")
    part = given.get("partial_rotary_factor", hf.get("partial_rotary_factor", family.part or 1.0))
    if not is_number(part) or part > 1 or (family.part is None and part != 1):
        raise UserError(f"{source}: partial_rotary_factor {part!r} of rotary positions is not known here")
    stretch = {ours: numbers[_STRETCH[ours]] for ours in _ROTARY_KEYS[kind]}
    if kind == "llama3" and stretch["high"] <= stretch["low"]:
        raise UserError(f"{source}: rotary type 'llama3' needs high_freq_factor above low_freq_factor")
    options: dict[str, Any] = {ours: (int if ours == "original" else float)(n) for ours, n in stretch.items()}
    options |= {"scaling": "none" if kind == "default" else kind, "part": float(part)}
    return Rotary(float(numbers["rope_theta"]), **options)


def windows(
    hf: dict[str, Any], source: str, family: Family, window: int | None, layers: int
) -> tuple[int | None, tuple[bool, ...] | None]:
    """The window, None where no layer sees one; and which layers see it, None where all do.

    Raises UserError for `layer_types` that are not as many words as there are layers.
    """
    upper = family.windows == "upper"
    if family.windows == "none" or (upper and hf.get("use_sliding_window") is not True):
        return None, None
    if family.windows == "all" or window is None:
        return window, None
    if layers > MOST_LAYERS:
        raise UserError(f"{source}: num_hidden_layers is {layers}; expected {MOST_LAYERS} at most")
    words = hf.get("layer_types")
    if words is None:
        key, n = ("max_window_layers", 28) if upper else family.every
        n = hf.get(key, n)
        if type(n) is not int or n < (0 if upper else 1):
            raise UserError(f"{source}: {key} is {n!r}; expected a whole number")
        local = tuple(i >= n if upper else (i + 1) % n > 0 for i in range(layers))
    else:
        if (
            not isinstance(words, list)
            or len(words) != layers
            or any(w not in (_LOCAL, _FULL) for w in words)
        ):
            raise UserError(f"{source}: layer_types must say {_LOCAL} or {_FULL} of each of {layers} layers")
        local = tuple(word == _LOCAL for word in words)
    if not any(local):
        return None, None
    return window, None if all(local) else local


def hf_rotary(config: DecoderConfig, family: Family) -> dict[str, Any]:
    """The keys from which `rotary` makes the settings again."""
    if config.rotary is None:
        return {}
    full = _hf_rotary(config.rotary, family)
    if family.thetas[1] is None:
        return {"rope_parameters": full}
    near = _hf_rotary(config.local_rotary or config.rotary, family)
    return {"rope_parameters": {_FULL: full, _LOCAL: near}}


def _hf_rotary(rotary: Rotary, family: Family) -> dict[str, Any]:
    kind = "default" if rotary.scaling == "none" else rotary.scaling
    stretch = {_STRETCH[ours]: getattr(rotary, ours) for ours in _ROTARY_KEYS[kind]}
    part = {} if family.part is None else {"partial_rotary_factor": rotary.part}
    return {"rope_type": kind, "rope_theta": rotary.theta} | stretch | part


def hf_windows(config: DecoderConfig, family: Family) -> dict[str, Any]:
    """The keys from which `windows` makes them again."""
    if family.windows == "none" or config.layers > MOST_LAYERS:
        return {}
    if family.windows == "all":
        return {"sliding_window": config.window}
    if family.windows == "upper" and config.window is None:
        return {"use_sliding_window": False}
    local = config.local or (config.window is not None,) * config.layers
    words = [_LOCAL if here else _FULL for here in local]
    asked = {"use_sliding_window": True} if family.windows == "upper" else {}
    return asked | {"sliding_window": config.window or 4096, "layer_types": words}
