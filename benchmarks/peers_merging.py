"""peft's own prototypes, and its `svd` combination of adapters, at one linear."""

# pyright: reportMissingImports=false

from typing import Any

import numpy as np
import torch
from peft import ArrowConfig, LoraConfig, get_peft_model
from peft.tuners.lora.arrow import ArrowLoraLinearLayer
from torch import nn

from benchmarks.cases import SCALE, Case
from benchmarks.measure import Call
from benchmarks.peers_torch import adapters, base_linear, names

MERGED = "merged"


def prototypes(case: Case) -> Call:
    """Of all experts, one after the other, by 15 steps of power iteration each."""
    layer = adapters(base_linear(case), case.a, case.b, SCALE)
    config = ArrowConfig(top_k=1, rng_seed=0)
    config.task_adapter_names, config.gks_adapter_names = names(layer), []
    arrow = ArrowLoraLinearLayer(case.size.d, config)

    def call() -> torch.Tensor:
        arrow._protos_ready = False
        arrow.build_prototypes(layer.lora_A, layer.lora_B)
        found: Any = arrow.prototypes
        return found

    return call


class One(nn.Module):
    """A model of one linear."""

    def __init__(self, case: Case):
        super().__init__()
        self.linear = base_linear(case)


def svd(case: Case) -> Call:
    """The mean of all experts, of the rank of one: `add_weighted_adapter(combination_type="svd")`; gives A and B."""
    config = LoraConfig(r=case.size.r, lora_alpha=round(SCALE * case.size.r), target_modules=["linear"])
    model: Any = get_peft_model(One(case), config, adapter_name="task_0")
    for number in range(case.size.e):
        name = f"task_{number}"
        if number:
            model.add_adapter(name, config)
        linear = model.base_model.model.linear
        linear.lora_A[name].weight.data = torch.from_numpy(case.a[number])
        linear.lora_B[name].weight.data = torch.from_numpy(np.ascontiguousarray(case.b[number].T))
    some = [f"task_{number}" for number in range(case.size.e)]

    def call() -> tuple[torch.Tensor, torch.Tensor]:
        weights = [1 / len(some)] * len(some)
        model.add_weighted_adapter(some, weights, MERGED, combination_type="svd", svd_rank=case.size.r)
        linear = model.base_model.model.linear
        found = linear.lora_A[MERGED].weight.detach(), linear.lora_B[MERGED].weight.detach()
        model.delete_adapter(MERGED)
        return found

    return call
