"""Configs: from a Hugging Face config.json to ours, checked, and back."""

from dataclasses import fields
from typing import Any

from moejax.models import t5
from moejax.models.decoder import DecoderConfig
from moejax.models.encoder import EncoderConfig
from moejax.models.families import FAMILIES, REQUIRED
from moejax.models.layers import Rotary
from moejax.models.seq2seq import Seq2SeqConfig
from moejax.types import UserError

_ACTIVATIONS = {
    "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu", "silu": "silu",
    "swish": "silu",
}  # fmt: skip
_SIZES = {
    "vocab", "width", "layers", "heads", "kv_heads", "hidden", "head_dim", "window", "positions", "types",
    "encoder_layers", "decoder_layers", "buckets", "most",
}  # fmt: skip
_STRETCH = {
    "factor": "factor", "low": "low_freq_factor", "high": "high_freq_factor",
    "original": "original_max_position_embeddings",
}  # fmt: skip
_ROTARY_KEYS = {"default": (), "linear": ("factor",), "llama3": tuple(_STRETCH)}


Config = EncoderConfig | DecoderConfig | Seq2SeqConfig


def configure(hf: dict[str, Any], source: str, dtype: str = "float32") -> Config:
    """Our config for a Hugging Face one; `source` names the file in errors.

    Raises UserError for code or quantisation in it, an unknown family, a missing key, a value that is not
    known here.
    """
    for key, why in (
        ("auto_map", "it asks for code from the folder to be run, which moejax never does"),
        ("quantization_config", "its weights are quantised: give the unquantised model"),
    ):
        if hf.get(key):
            raise UserError(f"{source}: {key} is set: {why}")
    name = hf.get("model_type")
    if not isinstance(name, str) or name not in FAMILIES:
        raise UserError(f"{source}: model_type is {name!r}; expected one of {', '.join(FAMILIES)}")
    family = FAMILIES[name]
    for key, value in family.only.items():
        if hf.get(key, value) != value:
            raise UserError(f"{source}: {key} is {hf[key]!r}, but moejax computes {name} with {value!r} only")
    values = {
        ours: _value(hf, theirs, default, ours, source) for ours, (theirs, default) in family.fields.items()
    }
    values |= family.fixed
    if family.kind == "seq2seq":
        return t5.configured(values, hf, source, dtype)
    if family.kind == "encoder":
        config = EncoderConfig(**values, dtype=dtype)
    else:
        values["kv_heads"] = values["kv_heads"] or values["heads"]
        config = DecoderConfig(**values, rotary=rotary(hf, source), dtype=dtype)
    check(config, source)
    return config


def _value(hf: dict[str, Any], theirs: str, default: Any, ours: str, source: str) -> Any:
    value = hf.get(theirs, default)
    if value is REQUIRED:
        raise UserError(f"{source}: {theirs} is missing")
    if ours == "activation":
        if value not in _ACTIVATIONS:
            raise UserError(f"{source}: {theirs} is {value!r}; expected one of {', '.join(_ACTIVATIONS)}")
        return _ACTIVATIONS[value]
    if ours in _SIZES:
        good = (value is None and default is not REQUIRED) or (type(value) is int and 0 < value < 2**31)
    else:
        good = type(value) is bool if type(default) is bool else isinstance(value, (int, float)) and value > 0
    if not good:
        expected = (
            "true or false"
            if type(default) is bool
            else "a whole number from 1 to 2147483647"
            if ours in _SIZES
            else "a number above 0"
        )
        raise UserError(f"{source}: {theirs} is {value!r}; expected {expected}")
    return value


def rotary(hf: dict[str, Any], source: str) -> Rotary:
    """Rotary settings, from `rope_parameters` or from the older `rope_theta` and `rope_scaling`."""
    key = "rope_parameters" if hf.get("rope_parameters") else "rope_scaling"
    given = hf.get(key) or {}
    if not isinstance(given, dict):
        raise UserError(f"{source}: {key} is {given!r}; expected an object")
    kind = given.get("rope_type", given.get("type", "default"))
    if given.get("partial_rotary_factor", 1.0) != 1.0 or kind not in _ROTARY_KEYS:
        raise UserError(f"{source}: rotary type {kind!r}, or its part of a head, is not known here")
    numbers = {"rope_theta": hf.get("rope_theta", 10000.0)} | given
    for name in ("rope_theta", *(_STRETCH[ours] for ours in _ROTARY_KEYS[kind])):
        if type(numbers.get(name)) not in (int, float) or numbers[name] <= 0:
            raise UserError(f"{source}: rotary type {kind!r} needs a number above 0 under {name}")
    stretch = {ours: numbers[_STRETCH[ours]] for ours in _ROTARY_KEYS[kind]}
    return Rotary(float(numbers["rope_theta"]), "none" if kind == "default" else kind, **stretch)


def check(config: EncoderConfig | DecoderConfig, source: str) -> None:
    """Raise UserError unless the sizes fit each other."""
    block = config.block
    if config.width % config.heads and getattr(config, "head_dim", None) is None:
        raise UserError(f"{source}: width {config.width} does not divide into {config.heads} heads")
    if block.heads % block.kv_heads:
        raise UserError(f"{source}: {block.heads} heads do not divide into {block.kv_heads} key-value heads")
    if block.rotary is not None and block.head_dim % 2:
        raise UserError(f"{source}: rotary positions need an even head size, not {block.head_dim}")


def hf_config(config: Config) -> dict[str, Any]:
    """The Hugging Face config of ours, from which `configure` makes it again (but remat, temperature, dtype).

    Raises UserError where no family has that combination of options.
    """
    if isinstance(config, Seq2SeqConfig):
        name, extra = "t5", t5.described(config)
    elif isinstance(config, EncoderConfig):
        name, extra = "bert", {"architectures": ["BertModel"]}
    else:
        name = "mistral" if config.window else "qwen2" if config.qkv_bias and not config.out_bias else "llama"
        extra = {
            "architectures": [f"{name.capitalize()}ForCausalLM"],
            "rope_parameters": _hf_rotary(config.rotary),
        }
    back = {
        ours: theirs for theirs, ours in _ACTIVATIONS.items() if theirs != "swish" and theirs != "gelu_new"
    }
    found = {"model_type": name} | extra
    for ours, (theirs, _) in FAMILIES[name].fields.items():
        value = getattr(config, ours)
        if value is not None:
            found[theirs] = back[value] if ours == "activation" else value
    again = configure(found, "this config", config.dtype)
    lost = [f.name for f in fields(config) if f.name not in ("remat", "temperature")
            and getattr(again, f.name) != getattr(config, f.name)]  # fmt: skip
    if lost:
        raise UserError(f"no known family has {lost[0]}={getattr(config, lost[0])!r} together with the rest")
    return found


def _hf_rotary(rotary: Rotary) -> dict[str, Any]:
    kind = "default" if rotary.scaling == "none" else rotary.scaling
    stretch = {_STRETCH[ours]: getattr(rotary, ours) for ours in _ROTARY_KEYS[kind]}
    return {"rope_type": kind, "rope_theta": rotary.theta} | stretch
