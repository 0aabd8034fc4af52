"""Configs: from a Hugging Face config.json to ours, checked, and back."""

from dataclasses import fields, replace
from functools import lru_cache
from typing import Any, cast

from moejax.models import t5
from moejax.models.decoder import DecoderConfig
from moejax.models.encoder import EncoderConfig
from moejax.models.families import FAMILIES, REQUIRED, Family
from moejax.models.positions import hf_rotary, hf_windows, is_number, rotary, windows
from moejax.models.seq2seq import Seq2SeqConfig
from moejax.types import UserError

Config = EncoderConfig | DecoderConfig | Seq2SeqConfig

_ACTIVATIONS = {
    "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu", "silu": "silu",
    "swish": "silu",
}  # fmt: skip
_SIZES = {
    "vocab", "width", "layers", "heads", "kv_heads", "hidden", "head_dim", "window", "positions", "types", "learned",
    "query", "encoder_layers", "decoder_layers", "buckets", "most",
}  # fmt: skip
_OPTIONAL = {
    "kv_heads",
    "hidden",
    "head_dim",
    "window",
    "cap",
    "head_cap",
    "decoder_layers",
}  # null means without, or as another
_OURS = ("remat", "temperature", "formulation")  # what no config.json says
MOST = 2**31 - 1


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
        if hf.get(key) not in (None, value):
            raise UserError(f"{source}: {key} is {hf[key]!r}, but moejax computes {name} with {value!r} only")
    values = {
        ours: _value(hf, theirs, default, ours, source) for ours, (theirs, default) in family.fields.items()
    }
    values |= family.fixed
    if family.kind == "seq2seq":
        return t5.configured(values, hf, source, dtype)
    values["dtype"] = dtype
    config = (
        _encoder(hf, source, family, values)
        if family.kind == "encoder"
        else _decoder(hf, source, family, values)
    )
    check(config, source)
    return config


def _encoder(hf: dict[str, Any], source: str, family: Family, values: dict[str, Any]) -> EncoderConfig:
    if family.offset:
        pad = hf.get("pad_token_id", 1)
        if type(pad) is not int or not 0 <= pad < values["positions"] - 1:
            raise UserError(
                f"{source}: pad_token_id is {pad!r}; expected a whole number below max_position_embeddings, "
                "since positions begin behind it"
            )
        values |= {"offset": pad + 1, "positions": values["positions"] - pad - 1}
    return EncoderConfig(**values)


def _decoder(hf: dict[str, Any], source: str, family: Family, values: dict[str, Any]) -> DecoderConfig:
    values["kv_heads"] = values["kv_heads"] or values["heads"]
    values["hidden"] = values["hidden"] or 4 * values["width"]
    window = values.pop("window", None)
    window, local = windows(hf, source, family, window, values["layers"])
    if "rotary" not in values:
        full, near = rotary(hf, source, family)
        if near is not None and window is not None and local is None:
            full = near
        values |= {"rotary": full, "local_rotary": near if local else None}
    return DecoderConfig(**values, window=window, local=local)


def _value(hf: dict[str, Any], theirs: str, default: Any, ours: str, source: str) -> Any:
    value = hf.get(theirs, default)
    if value is REQUIRED:
        raise UserError(f"{source}: {theirs} is missing")
    if ours == "activation":
        if not isinstance(value, str) or value not in _ACTIVATIONS:
            raise UserError(f"{source}: {theirs} is {value!r}; expected one of {', '.join(_ACTIVATIONS)}")
        return _ACTIVATIONS[value]
    if value is None and ours in _OPTIONAL and default is not REQUIRED:
        return None
    if type(default) is bool:
        good, expected = type(value) is bool, "true or false"
    elif ours in _SIZES:
        good, expected = type(value) is int and 0 < value <= MOST, f"a whole number from 1 to {MOST}"
    else:
        good, expected = is_number(value), "a number above 0"
    if not good:
        raise UserError(f"{source}: {theirs} is {value!r}; expected {expected}")
    return value if type(default) is bool or ours in _SIZES else float(cast(float, value))


def check(config: Config, source: str) -> None:
    """Raise UserError unless the sizes fit each other."""
    block = config.block
    if config.width % config.heads and getattr(config, "head_dim", None) is None:
        raise UserError(f"{source}: width {config.width} does not divide into {config.heads} heads")
    if block.heads % block.kv_heads:
        raise UserError(f"{source}: {block.heads} heads do not divide into {block.kv_heads} key-value heads")
    if block.heads * block.head_dim > MOST or block.hidden > MOST // 2:
        raise UserError(
            f"{source}: {block.heads} heads of {block.head_dim} and {block.hidden} hidden are too many"
        )
    if block.rotary is not None:
        turned = block.rotary.turned(block.head_dim)
        if turned % 2 or not turned:
            raise UserError(f"{source}: rotary positions need an even head size, not {turned}")


def hf_config(config: Config) -> dict[str, Any]:
    """The Hugging Face config of ours, from which `configure` makes it again (but its dtype, and what is `_OURS`).

    Raises UserError where no family has that combination of options.
    """
    return _back(config, FAMILIES[family_of(config)], family_of(config))


@lru_cache(maxsize=256)
def family_of(config: Config) -> str:
    """The first family that has the options of a config. Raises UserError where there is none."""
    if isinstance(config, Seq2SeqConfig):
        return "t5"
    kind, fewest = (
        "encoder" if isinstance(config, EncoderConfig) else "decoder",
        [f.name for f in fields(config)],
    )
    for name, family in FAMILIES.items():
        if family.kind == kind:
            lost = _lost(config, family, name)
            if not lost:
                return name
            fewest = min(fewest, lost, key=len)
    option = fewest[0]
    raise UserError(f"no known family has {option}={getattr(config, option)!r} together with the rest")


def _lost(config: Config, family: Family, name: str) -> list[str]:
    """The options of a config that a family cannot say."""
    names = [f.name for f in fields(config) if f.name not in _OURS]
    try:
        again = configure(_back(config, family, name), "this config", config.dtype)
    except UserError:
        return names
    if isinstance(config, DecoderConfig) and isinstance(again, DecoderConfig) and "head_dim" in family.fields:
        again = replace(
            again, head_dim=config.head_dim if again.block.head_dim == config.block.head_dim else 0
        )
    return [name for name in names if getattr(again, name) != getattr(config, name)]


def _back(config: Config, family: Family, name: str) -> dict[str, Any]:
    if isinstance(config, Seq2SeqConfig):
        said = {theirs: getattr(config, ours) for ours, (theirs, _) in family.fields.items()}
        return {"model_type": name} | said | t5.described(config)
    back: dict[Any, str] = {
        ours: theirs for theirs, ours in _ACTIVATIONS.items() if theirs != "swish" and theirs != "gelu_new"
    }
    found: dict[str, Any] = {"model_type": name, "architectures": [family.wrapper]} | family.said
    for ours, (theirs, default) in family.fields.items():
        value = getattr(config, ours)
        if ours == "head_dim" and isinstance(config, DecoderConfig) and default is not None:
            value = config.block.head_dim
        if value is not None or default is not None:
            found[theirs] = back[value] if ours == "activation" else value
    if isinstance(config, DecoderConfig):
        return found | hf_rotary(config, family) | hf_windows(config, family)
    if family.offset:
        found |= {
            "max_position_embeddings": config.positions + config.offset,
            "pad_token_id": config.offset - 1,
        }
    return found
