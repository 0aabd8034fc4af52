"""A bottleneck expert in AdapterHub's layout: what its config says, and its tensors by their names."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from moejax.experts.adapters_config import reduction_of
from moejax.experts.bottleneck import Bottleneck
from moejax.experts.expert import Expert, SiteKey
from moejax.experts.homes import JOIN, Homes
from moejax.experts.part import rank
from moejax.experts.read_adapters import TENSORS
from moejax.types import UserError

FIXED = {
    "original_ln_after": True, "residual_before_ln": True, "ln_before": False, "ln_after": False,
    "adapter_residual_before_ln": False, "is_parallel": False, "use_gating": False, "inv_adapter": None,
    "cross_adapter": False, "phm_layer": False, "dropout": 0.0, "init_weights": "bert",
}  # fmt: skip

LAYOUT = "adapters.1.3.0"  # whose layout it is: without a version, `adapters` takes gelu for gelu_new


def describe(expert: Expert, homes: Homes) -> dict[str, Any]:
    """`adapter_config.json`. Raises UserError for adapters that one such file cannot describe."""
    adapters, here = expert.bottlenecks, f"expert {expert.name!r}"
    kinds = {(path.endswith(JOIN), one.act, one.scale) for (path, _), one in adapters.items()}
    if len(kinds) > 1:
        raise UserError(
            f"{here} mixes places, non-linearities or scales, of which AdapterHub's layout holds one: "
            "write an expert of each"
        )
    ((at_join, act, scale),) = kinds
    sublayers = {path.removesuffix(JOIN) for path, _ in adapters}
    used = {layer for _, layer in adapters}
    ranks = {layer: rank(one) for (_, layer), one in adapters.items()}
    alike = all(rank(one) == ranks[layer] for (_, layer), one in adapters.items())
    if len(adapters) != len(sublayers) * len(used) or not alike:
        raise UserError(
            f"{here} differs from sub-layer to sub-layer within a layer, which AdapterHub's layout cannot say: "
            "write an expert of each sub-layer"
        )
    factors = {str(layer): reduction_of(ranks[layer], homes.d) for layer in sorted(used)}
    same = len(set(factors.values())) == 1
    layers = {layer for _, layer in homes.modules.values()}
    config = FIXED | {
        "mh_adapter": "layers/attn" in sublayers, "output_adapter": "layers/mlp" in sublayers,
        "original_ln_before": at_join, "non_linearity": act, "scaling": float(scale),
        "reduction_factor": next(iter(factors.values())) if same else factors, "leave_out": sorted(layers - used),
    }  # fmt: skip
    name = key_name(expert.name)
    return {"config": config, "hidden_size": homes.d, "model_name": "", "name": name, "version": LAYOUT}


def key_name(name: str) -> str:
    """An expert's name as a part of a tensor's, which is parted by dots."""
    return re.sub(r"[^\w-]", "_", name)


def tensors(adapters: Mapping[str, Bottleneck], name: str) -> dict[str, np.ndarray]:
    """The tensors of adapters by module, by the names that they have in a file."""
    found = {}
    for module, one in adapters.items():
        values = (one.a, one.a_bias, one.b.T, one.b_bias)
        found |= {f"{module}.adapters.{key_name(name)}.{t}": v for t, v in zip(TENSORS, values, strict=True)}
    return found


def by_module(expert: Expert, homes: Homes) -> dict[str, Bottleneck]:
    """The adapters by AdapterHub's module. Raises UserError on a site that the base lacks, or a value not finite."""
    names: dict[SiteKey, str] = {site: module for module, site in homes.modules.items()}
    found = {}
    for (path, layer), one in expert.bottlenecks.items():
        here, site = f"expert {expert.name!r} at {path!r}, layer {layer}", (path.removesuffix(JOIN), layer)
        if site not in names:
            raise UserError(f"{here}: the base has no such site")
        if not all(np.isfinite(leaf).all() for leaf in (one.a, one.a_bias, one.b, one.b_bias, one.scale)):
            raise UserError(f"{here}: factors, biases and scale must be finite")
        if names[site] in found:
            raise UserError(f"{here}: there is another adapter of this sub-layer, after it or at its join")
        found[names[site]] = one
    return found
