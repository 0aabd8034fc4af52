"""Whole models of the peers, the same weights: the base in transformers, and peft's one LoRA or its Arrow over e."""

# pyright: reportMissingImports=false

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from benchmarks.cases import SCALE
from benchmarks.measure import Call, Entry
from benchmarks.model import Setting, bank_of, named, texts
from benchmarks.peers_layer import BARE
from benchmarks.peers_torch import adapters, with_arrow
from moejax.experts.bank import Bank
from moejax.experts.stacks import Stack
from moejax.models import weights
from moejax.models.base import Base
from moejax.models.encoder import EncoderConfig

transformers.utils.logging.disable_progress_bar()
FEWER = 4  # tokens that a peer writes in a call: each is a pass through Python


def load(base: Base) -> Any:
    """transformers' model of a base."""
    with tempfile.TemporaryDirectory() as folder:
        weights.save(base, Path(folder))
        if base.kind == "encoder":
            return transformers.AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()
        return transformers.AutoModelForCausalLM.from_pretrained(folder).eval()


def wear(model: Any, base: Base, bank: Bank, k: int) -> Any:
    """The model with peft's linears in place of those that the bank adapts: one LoRA worn, several routed by Arrow."""
    for name, (path, layer) in base.sites.items():
        stack = bank.sites.get(path)
        if not isinstance(stack, Stack):
            continue
        slot, (parent, _, last) = int(stack.slot[layer]), name.rpartition(".")
        a, b = np.asarray(stack.a[slot]), np.asarray(stack.b[slot])
        linear = adapters(model.get_submodule(name), a, b, SCALE)
        linear = linear if len(a) == 1 else with_arrow(linear, k)
        setattr(model.get_submodule(parent), last, linear)
    return model.requires_grad_(False)


def make(base: Base, setting: Setting, e: int) -> Any:
    """The bare base (e = 0), one LoRA, or Arrow over e experts."""
    model = load(base)
    return wear(model, base, bank_of(base, setting.sites, e, setting.r), setting.k) if e else model


def call(base: Base, setting: Setting, e: int) -> Call:
    """A call of the model as the setting says."""
    model, tokens = make(base, setting, e), torch.tensor(texts(setting)).long()

    @torch.inference_mode()
    def forward() -> Any:
        return model(tokens)[0]

    if not setting.decoded:
        return forward if isinstance(setting.config, EncoderConfig) else partial(first, model, tokens)
    begun, kept = first(model, tokens)
    (cache,) = kept.values()

    @torch.inference_mode()
    def written() -> Any:
        token = begun
        for _ in range(FEWER):
            token = model(token, use_cache=True, **kept).logits[:, -1:].argmax(-1)
        cache.crop(-FEWER)
        return token

    return written


@torch.inference_mode()
def first(model: Any, tokens: Any) -> Any:
    """The likeliest next tokens [b, 1], and the cache under its name, which later releases call otherwise."""
    found = model(tokens, use_cache=True, logits_to_keep=1)
    name = next(name for name in ("cache", "past_key_values") if name in found)
    return found.logits[:, -1:].argmax(-1), {name: found[name]}


def need(base: Base, setting: Setting, e: int) -> float:
    """Bytes: Arrow holds every expert's output for every token of the widest linear, twice."""
    tokens = setting.rows * (1 if setting.decoded else setting.tokens)
    return 8.0 * tokens * e * max(base.shapes[path][1] for path in setting.sites) * (e > 1)


def entries(base: Base, setting: Setting) -> list[Entry]:
    """The bare model, one LoRA, and Arrow over the pools."""
    steps = FEWER if setting.decoded else 1
    found = [Entry(BARE, partial(call, base, setting, 0), BARE, "bare", beside="bare, jax", steps=steps)]
    for e in (1, *setting.pools):
        name = "peft, one LoRA" if e == 1 else f"peft, Arrow, {e} experts"
        make = partial(call, base, setting, e)
        found.append(Entry(name, make, BARE, "peer", named(e), need=need(base, setting, e), steps=steps))
    return found
