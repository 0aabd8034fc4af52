"""AdapterHub's `adapter_config.json`: where the bottleneck adapters stand, how wide they are, what they compute."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from moejax.experts.bottleneck import ACTS
from moejax.types import UserError

OLD = {"gelu": "gelu_new", "gelu_orig": "gelu"}  # what the names meant before configs had a version
SAME = {"silu": "swish", "gelu_pytorch_tanh": "gelu_new"}
ONLY = {  # field -> (the value that can be read, what another one would mean); absent fields have these values
    "original_ln_after": (True, "the layer's own norm is left out"),
    "ln_before": (False, "a norm within the adapter"),
    "ln_after": (False, "a norm within the adapter"),
    "is_parallel": (False, "an adapter beside the sub-layer"),
    "use_gating": (False, "a gate within the adapter"),
    "inv_adapter": (None, "an invertible adapter at the embedding"),
    "invertible_adapter": (None, "an invertible adapter at the embedding"),
    "cross_adapter": (False, "an adapter at cross-attention"),
    "phm_layer": (False, "factors of hypercomplex numbers"),
    "architecture": (None, "another kind of adapter"),
}
USED = {"mh_adapter", "output_adapter", "reduction_factor", "non_linearity", "original_ln_before", "scaling",
        "leave_out", "residual_before_ln"}  # fmt: skip
WITHOUT_MEANING = {  # training, or details of what ONLY refuses
    "adapter_residual_before_ln", "dropout", "init_weights", "init_weights_seed", "inv_adapter_reduction_factor",
    "phm_dim", "factorized_phm_W", "shared_W_phm", "shared_phm_rule", "factorized_phm_rule", "phm_c_init",
    "phm_init_range", "learn_phm", "hypercomplex_nonlinearity", "phm_rank", "phm_bias", "stochastic_depth",
}  # fmt: skip


class AdaptersConfig(NamedTuple):
    """sublayers: paths of those that have adapters; at_join: whether they see residual and norm (Pfeiffer).

    reduction: d / r by the layer's number, or "default".
    """

    name: str
    sublayers: tuple[str, ...]
    at_join: bool
    reduction: dict[str, float]
    act: str
    scale: float
    leave_out: tuple[int, ...]


def is_adapters(raw: Mapping[str, Any]) -> bool:
    """Whether a config is AdapterHub's: PEFT's names its `peft_type`."""
    return "peft_type" not in raw and isinstance(raw.get("config"), dict)


def parse(raw: Mapping[str, Any], file: str) -> AdaptersConfig:
    """Check a parsed config. Raises UserError naming `file` and the field."""
    config = raw["config"]
    _refuse(config, file)
    sublayers = {"layers/attn": "mh_adapter", "layers/mlp": "output_adapter"}
    chosen = tuple(path for path, field in sublayers.items() if _flag(config, field, file))
    if not chosen:
        raise UserError(f"{file}: neither mh_adapter nor output_adapter is true: there is no adapter to read")
    at_join = _flag(config, "original_ln_before", file)
    if at_join and config.get("residual_before_ln", True) is not True:
        raise UserError(
            f"{file}: residual_before_ln is {config['residual_before_ln']!r}: only true can be read, where the "
            "adapter's output is added before the norm"
        )
    act = config.get("non_linearity")
    if isinstance(act, str):
        act = act.lower() if "version" in raw else OLD.get(act.lower(), act.lower())
        act = SAME.get(act, act)
    if act not in ACTS:
        raise UserError(f"{file}: non_linearity is {act!r}: expected one of {', '.join(ACTS)}")
    scale = config.get("scaling", 1.0)
    if type(scale) not in (int, float) or not math.isfinite(scale) or scale == 0:
        raise UserError(
            f"{file}: scaling is {scale!r}: expected a number other than 0, a learned one is not read"
        )
    leave_out = config.get("leave_out") or []
    if not isinstance(leave_out, list) or not all(type(layer) is int for layer in leave_out):
        raise UserError(f"{file}: leave_out must be a list of layers, not {leave_out!r}")
    name = raw.get("name")
    if not isinstance(name, str) or not name:
        raise UserError(
            f"{file}: name is {name!r}: expected the adapter's name, by which its tensors are called"
        )
    return AdaptersConfig(
        name,
        chosen,
        at_join,
        _reduction(config.get("reduction_factor"), file),
        act,
        float(scale),
        tuple(leave_out),
    )


def _refuse(config: Mapping[str, Any], file: str) -> None:
    for field, (value, what) in ONLY.items():
        if config.get(field, value) not in (value, None) or (value is True and not config.get(field, True)):
            raise UserError(f"{file}: {field} is {config[field]!r}: {what} cannot be read")
    for field in sorted(set(config) - USED - WITHOUT_MEANING - set(ONLY)):
        if config[field] not in (None, False, "", [], {}):
            raise UserError(
                f"{file}: the field {field!r} is not known here and may change what the weights mean"
            )


def _flag(config: Mapping[str, Any], field: str, file: str) -> bool:
    value = config.get(field, False)
    if not isinstance(value, bool):
        raise UserError(f"{file}: {field} is {value!r}: expected true or false")
    return value


def _reduction(value: Any, file: str) -> dict[str, float]:
    numbers = value if isinstance(value, dict) else {"default": value}
    for layer, one in numbers.items():
        if type(one) not in (int, float) or not math.isfinite(one) or one <= 0:
            raise UserError(f"{file}: reduction_factor is {one!r} at {layer}: expected a number above 0")
    return {layer: float(one) for layer, one in numbers.items()}


def rank(config: AdaptersConfig, layer: int, d: int, file: str) -> int:
    """r of a layer: d over its reduction factor, rounded down, at least 1. Raises UserError where none is given."""
    factor = config.reduction.get(str(layer), config.reduction.get("default"))
    if factor is None:
        raise UserError(f"{file}: reduction_factor has no value for layer {layer} and no default")
    return max(1, int(d // factor))


def reduction_of(r: int, d: int) -> int | float:
    """A factor that gives r again: d // factor = r."""
    return d // r if d % r == 0 else d / (r + 0.5)
