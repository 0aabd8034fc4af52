"""Peers on torch at one linear: peft's mixed batch, Arrow and X-LoRA, and the two orders of mttl.

`arrow`, `xlora` and `outputs` compute our `output` (k of e chosen for each token and site), `parameters` our `factor`.
`mixed` does not route: it is given one adapter a token.
"""

# pyright: reportMissingImports=false

from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from peft import ArrowConfig, LoraConfig, XLoraConfig
from peft.tuners import lora
from peft.tuners.xlora.layer import XLoraLinearLayer
from torch import Tensor, nn

from benchmarks.cases import SCALE, Case, directions
from benchmarks.machine import cores

torch.set_num_threads(cores())
ROUTER = "arrow_router"


class Peer(NamedTuple):
    """A layer: `apply(x)`, its input, the output's gradient, and what has a gradient of its own beside the input."""

    apply: Callable[[Tensor], Tensor]
    x: Tensor
    aim: Tensor
    free: Sequence[Tensor] = ()


def base_linear(case: Case) -> nn.Linear:
    """The base's projection; it is frozen."""
    linear = nn.Linear(*case.w.shape, bias=False)
    linear.weight = nn.Parameter(torch.from_numpy(np.ascontiguousarray(case.w.T)), requires_grad=False)
    return linear


def adapters(linear: nn.Linear, a: np.ndarray, b: np.ndarray, scale: float) -> Any:
    """peft's linear with an adapter for each expert: a [e, r, d], b [e, r, f]."""
    r = a.shape[1]
    config = LoraConfig(r=r, lora_alpha=scale * r, init_lora_weights=False)
    layer: Any = lora.Linear(linear, "task_0", config, r=r, lora_alpha=config.lora_alpha)
    for number, (down, up) in enumerate(zip(a, b, strict=True)):
        name = f"task_{number}"
        if number:
            layer.update_layer(name, r, lora_alpha=config.lora_alpha, config=config)
        layer.lora_A[name].weight = nn.Parameter(torch.tensor(down))
        layer.lora_B[name].weight = nn.Parameter(torch.tensor(np.ascontiguousarray(up.T)))
    return layer.eval()


def names(layer: Any) -> list[str]:
    """The experts' adapters, in order."""
    return [name for name in layer.lora_A if name != ROUTER]


def with_arrow(layer: Any, k: int) -> Any:
    """The same, routed by peft's Arrow, with the exact prototypes in place of its power iterations."""
    some = names(layer)
    arrow = ArrowConfig(top_k=k, router_temperature=1.0)
    arrow.task_adapter_names, arrow.gks_adapter_names = some, []
    config = LoraConfig(r=layer.r[some[0]], arrow_config=arrow)
    layer.update_layer(ROUTER, config.r, lora_alpha=config.lora_alpha, config=config)
    layer.set_adapter(ROUTER)
    a = np.stack([layer.lora_A[name].weight.detach().numpy() for name in some])
    b = np.stack([layer.lora_B[name].weight.detach().numpy().T for name in some])
    router = layer.lora_arrow[ROUTER]
    router.register_buffer("prototypes", torch.from_numpy(directions(a, b)), persistent=False)
    router._protos_ready = True
    return layer


def _free(layer: Any) -> list[Tensor]:
    found = [table[name].weight for table in (layer.lora_A, layer.lora_B) for name in names(layer)]
    for weight in found:
        weight.requires_grad_(True)
    return found


def _tensors(case: Case) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(case.x)[None], torch.from_numpy(case.aim)[None]


def bare(case: Case) -> Peer:
    """The projection alone."""
    return Peer(base_linear(case), *_tensors(case))


def mixed(case: Case) -> Peer:
    """peft's mixed batch: every token a row with one adapter, the first of its choices; no weights."""
    layer = adapters(base_linear(case), case.a, case.b, SCALE)
    given = [f"task_{number}" for number in case.index[:, 0]]
    x, aim = (tensor.transpose(0, 1).contiguous() for tensor in _tensors(case))
    return Peer(partial(layer, adapter_names=given), x, aim, _free(layer))


def arrow(case: Case) -> Peer:
    """peft's Arrow: scores included."""
    layer = with_arrow(adapters(base_linear(case), case.a, case.b, SCALE), case.size.k)
    return Peer(layer, *_tensors(case), _free(layer))


def xlora(case: Case) -> Peer:
    """peft's X-LoRA layer, the scalings given as its classifier would give them: [b, t, layers, e]."""
    layer = adapters(base_linear(case), case.a, case.b, SCALE)
    layer.set_adapter(names(layer))
    config = XLoraConfig(
        hidden_size=case.size.d,
        adapters=dict.fromkeys(names(layer), ""),
        top_k_lora=case.size.k,
        enable_softmax=False,
    )
    model: Any = SimpleNamespace(disabled=False)
    wrapped = XLoraLinearLayer(model, layer, layer.forward, 0, config)
    scalings = torch.from_numpy(case.dense)[None, :, None].requires_grad_()
    return Peer(partial(wrapped.forward, scalings=scalings), *_tensors(case), [*_free(layer), scalings])


def _mttl(case: Case) -> tuple[nn.Linear, list[Tensor]]:
    a = torch.tensor(np.ascontiguousarray(case.a.swapaxes(1, 2)))  # [e, d, r]
    return base_linear(case), [
        leaf.requires_grad_() for leaf in (a, torch.tensor(case.b), torch.from_numpy(case.dense))
    ]


def outputs(case: Case) -> Peer:
    """mttl's `merge_after`: every expert's output, then their sum by the weights."""
    linear, free = _mttl(case)

    def apply(x: Tensor) -> Tensor:
        a, b, weights = free
        z = torch.einsum("bld,edr->bler", x, a)
        return linear(x) + SCALE * torch.einsum("bler,erf,ble->blf", z, b, weights[None])

    return Peer(apply, *_tensors(case), free)


def parameters(case: Case) -> Peer:
    """mttl's default: for every token the mixed A and the mixed B, then their product."""
    linear, free = _mttl(case)

    def apply(x: Tensor) -> Tensor:
        a, b, weights = free
        mixed_a = torch.einsum("ble,edr->bldr", weights[None], a)
        mixed_b = torch.einsum("ble,erf->blrf", weights[None], b)
        z = torch.einsum("bld,bldr->blr", x, mixed_a)
        return linear(x) + SCALE * torch.einsum("blr,blrf->blf", z, mixed_b)

    return Peer(apply, *_tensors(case), free)
