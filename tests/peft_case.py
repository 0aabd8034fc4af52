"""Tiny random bases with adapters of the real PEFT on them: for tests that compare our logits with its own.

A family is a line of FAMILIES; a kind of adapter is a line of `kinds`.
"""

import json
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import family_cases
import jax
import jax.numpy as jnp
import numpy as np

from moejax.adapted import Adapted, run
from moejax.experts.folder import CONFIG, WEIGHTS
from moejax.experts.pool import Pool, read_pool
from moejax.models.base import Base
from moejax.models.decoder import DecoderConfig
from moejax.models.encoder import EncoderConfig
from moejax.models.weights import load, random_base, save
from moejax.places import EXPERTS, own_expert
from moejax.types import Batch

ENCODER = EncoderConfig(vocab=50, width=32, layers=3, heads=4, hidden=48, positions=40)
DECODER = DecoderConfig(vocab=50, width=32, layers=3, heads=4, kv_heads=2, hidden=48)
LENGTHS = (12, 5, 9)


class Family(NamedTuple):
    """How its tiny base is made, transformers' class, two of its linears (attention, MLP), its list of layers.

    last: two linears whose last names are theirs alone, which is what PEFT's Arrow goes by.
    """

    config: Any
    model: str
    names: tuple[str, str]
    layers: str
    last: tuple[str, str] = ("q_proj", "up_proj")


FAMILIES = {
    "bert": Family(
        ENCODER, "BertModel", ("query", "intermediate.dense"), "encoder.layer", ("query", "value")
    ),
    "llama": Family(DECODER, "LlamaForCausalLM", ("q_proj", "up_proj"), "model.layers"),
    "mistral": Family(
        replace(DECODER, window=4), "MistralForCausalLM", ("q_proj", "up_proj"), "model.layers"
    ),
    "qwen2": Family(
        replace(DECODER, qkv_bias=True), "Qwen2ForCausalLM", ("q_proj", "up_proj"), "model.layers"
    ),
    "qwen3": Family(
        replace(family_cases.QWEN3, layers=3), "Qwen3ForCausalLM", ("q_proj", "up_proj"), "model.layers"
    ),
    "phi": Family(replace(family_cases.PHI, layers=3), "PhiForCausalLM", ("q_proj", "fc1"), "model.layers"),
    "phi3": Family(
        replace(family_cases.PHI3, layers=3), "Phi3ForCausalLM", ("qkv_proj", "gate_up_proj"), "model.layers"
    ),
    "gemma2": Family(family_cases.GEMMA2, "Gemma2ForCausalLM", ("q_proj", "up_proj"), "model.layers"),
    "gemma3": Family(family_cases.GEMMA3, "Gemma3ForCausalLM", ("q_proj", "up_proj"), "model.layers"),
    "gpt2": Family(
        replace(family_cases.GPT2, layers=3), "GPT2LMHeadModel", ("c_attn", "mlp.c_fc"), "transformer.h"
    ),
    "roberta": Family(
        replace(family_cases.ROBERTA, layers=3),
        "RobertaModel",
        ("query", "intermediate.dense"),
        "encoder.layer",
    ),
}


def kinds(family: Family) -> dict[str, dict[str, Any]]:
    """Every kind of LoRA that PEFT writes and moejax reads, as options of its LoraConfig.

    No name is a part of a module's: PEFT would take all tensors of such modules for that adapter's.
    """
    from peft.tuners.lora.config import MontecloraConfig

    attention, mlp = family.names
    escaped = family.layers.replace(".", r"\.")
    two = {"r": 4, "lora_alpha": 6, "target_modules": [attention, mlp]}
    return {
        "plain": two,
        "wide": two | {"r": 7, "lora_alpha": 20},
        "rslora": two | {"use_rslora": True},
        "rank_pattern": two | {"rank_pattern": {attention: 2, f"^{escaped}.0.*{mlp.split('.')[0]}.*": 3}},
        "alpha_pattern": two | {"alpha_pattern": {f"1.*{attention}": 1, rf"\d+.*{attention}": 32}},
        "both": two | {"rank_pattern": {attention: 2}, "alpha_pattern": {mlp: 32}, "use_rslora": True},
        "regex": two | {"target_modules": rf"{escaped}\.(0\..*{attention}|2\..*{mlp})"},
        "all_linear": two | {"r": 2, "target_modules": "all-linear"},
        "some_layers": two | {"layers_to_transform": [0, 2]},
        "by_name": two | {"layers_to_transform": 1, "layers_pattern": family.layers.split(".")[1]},
        "skips": two | {"exclude_modules": [f"0.mlp.{mlp}", f"1.{mlp}", f"layers.2.self_attn.{attention}"]},
        "biased": two | {"lora_bias": True},
        "orthogonal": two | {"init_lora_weights": "orthogonal"},
        "mica": two | {"init_lora_weights": "mica"},
        "sampled": two | {"monteclora_config": MontecloraConfig()},
        "bf16": two,
        "old": two,
    }


class Case(NamedTuple):
    """A base as moejax has it, its folder, and one of transformers' models of it for the taking."""

    base: Base
    folder: Path
    family: Family

    def model(self) -> Any:
        """A fresh model of transformers."""
        import transformers

        options = {"add_pooling_layer": False} if isinstance(self.family.config, EncoderConfig) else {}
        return getattr(transformers, self.family.model).from_pretrained(self.folder, **options).eval()

    def pool(self, folder: Path, **options: Any) -> Pool:
        """The experts of a folder, on this base."""
        base = self.base
        return read_pool(
            folder, base.sites, base.shapes, base.layers, base.fingerprint, homes=base.homes, **options
        )[0]


@cache
def _params(name: str) -> Base:
    return random_base(FAMILIES[name].config)


def case(name: str, folder: Path) -> Case:
    """The base of a family in a folder."""
    save(_params(name), folder)
    return Case(load(folder), folder, FAMILIES[name])


def texts(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and mask of rows of unequal length, padded on the right by RoBERTa's padding, which no token is."""
    rng, lengths = np.random.default_rng(0), np.resize(LENGTHS, rows)[:, None]
    mask = np.arange(max(LENGTHS))[None] < lengths
    return np.where(mask, rng.integers(2, 50, mask.shape), 1).astype(np.int32), mask


@partial(jax.jit, static_argnums=0)
def _states(adapted: Adapted, arrays: Any, batch: Batch) -> jax.Array:
    return run(adapted, arrays, batch).hidden


def logits_of_states(base: Base, hidden: np.ndarray) -> np.ndarray:
    """Of a decoder by its head; of an encoder by twice its word embeddings, which stand for one."""
    if base.kind == "encoder":
        return 2 * hidden @ np.asarray(base.params["embed"]["embedding"]).T
    return np.asarray(base.model.apply({"params": base.params}, jnp.asarray(hidden), method="head"))


def ours(
    base: Base, adapted: Adapted, arrays: Any, tokens: np.ndarray, mask: np.ndarray, expert: Any = None
) -> np.ndarray:
    """Logits of an adapted model."""
    expert = None if expert is None else jnp.asarray(expert, jnp.int32)
    batch = Batch(jnp.asarray(tokens), jnp.asarray(mask), jnp.asarray(mask), expert=expert)
    return logits_of_states(base, np.asarray(_states(adapted, arrays, batch)))


def worn(base: Base, pool: Pool, tokens: np.ndarray, mask: np.ndarray, experts: list[int]) -> np.ndarray:
    """Logits of rows that each wear an expert of the pool; -1: none."""
    arrays = {"params": base.params, "bank": pool.bank, "router": {}, "labels": base.labels}
    return ours(base, Adapted(base.model, EXPERTS, route=own_expert), arrays, tokens, mask, experts)


def theirs(base: Base, model: Any, tokens: np.ndarray, mask: np.ndarray, **options: Any) -> np.ndarray:
    """Logits of a model of transformers or PEFT."""
    import torch

    with torch.no_grad():
        found = model(
            input_ids=torch.tensor(tokens), attention_mask=torch.tensor(mask.astype(int)), **options
        )[0].numpy()
    return logits_of_states(base, found) if base.kind == "encoder" else found


def agree(one: np.ndarray, other: np.ndarray, mask: np.ndarray) -> None:
    """Equal at real tokens to 1e-4 of the largest logit, which is at least 4."""
    largest = np.abs(other[mask]).max()
    assert largest >= 4
    assert np.abs(one - other)[mask].max() <= 1e-4 * largest


def randomised(model: Any, half: str = "", size: float = 0.3) -> Any:
    """The model with random factors (and biases) in its LoRAs; those of adapter `half` are exact in bfloat16."""
    import torch

    torch.manual_seed(0)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if ".lora_" in name:
                drawn = size * torch.randn(value.shape)
                value.copy_(drawn.bfloat16() if half and f".{half}." in name else drawn)
    return model


def retensor(folder: Path, change: Any) -> None:
    """Rewrite the tensors of an adapter's folder."""
    from safetensors.torch import load_file, save_file

    tensors = {name: value.clone() for name, value in load_file(folder / WEIGHTS).items()}
    save_file(change(tensors), folder / WEIGHTS)


def saved(case: Case, folder: Path, some: dict[str, dict[str, Any]], **options: Any) -> Any:
    """PEFT's model with an adapter a name, random, and saved in `folder/NAME`."""
    from peft import LoraConfig, get_peft_model

    (first, settings), *others = some.items()
    model = get_peft_model(case.model(), LoraConfig(**settings), adapter_name=first)
    for name, settings in others:
        model.add_adapter(name, LoraConfig(**settings))
    model = randomised(model, **options).eval()
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    return model


def reconfigure(folder: Path, **changed: Any) -> None:
    """Change fields of an adapter's config."""
    config = json.loads((folder / CONFIG).read_text()) | changed
    (folder / CONFIG).write_text(json.dumps(config))


def old_layout(tensors: dict[str, Any]) -> dict[str, Any]:
    """The names of a whole model's state, prefix twice, the adapter's name within."""
    return {
        f"base_model.model.{name}".replace(".lora_A.", ".lora_A.default.").replace(
            ".lora_B.", ".lora_B.default."
        ): v
        for name, v in tensors.items()
    }
