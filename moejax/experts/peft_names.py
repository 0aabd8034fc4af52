"""The names of tensors in a PEFT file, as its versions have written them, and of the modules that they are for.

A name is `base_model.model.MODULE.lora_A.weight`. Older and hand-made files repeat the prefix or leave it out, keep
the adapter's name (`lora_A.default.weight`) or that of `torch.compile`; and a LoRA trained on a model with a head has
the wrapper's attribute in front of the module (`bert.encoder…`), one trained without has none (`layers.0…`).
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

PREFIX = "base_model.model."
PREFIXES = (PREFIX, "_orig_mod.")
LEAVES = ("lora_A.weight", "lora_B.weight", "lora_B.bias")
_KEY = re.compile(r"(.+)\.(lora_[AB])(?:\.([^.]+))?\.(weight|bias)", re.DOTALL)
HINTS = {  # part of a key -> what such a tensor is
    "lora_magnitude_vector": "DoRA's magnitudes",
    "lora_embedding": "a LoRA on an embedding",
    "modules_to_save": "a whole trained module",
    "trainable_tokens": "trained token embeddings",
    "lora_": "a kind of LoRA that is not known here",
    "embed": "a whole embedding, which was trained or resized",
    ".bias": "a trained bias",
    ".weight": "a whole trained module",
}


TRAINING = ".lora_monteclora_sampler."  # of tensors that have no part in what a LoRA does after its training


class Key(NamedTuple):
    """module: of PEFT's model; leaf: of `LEAVES`; adapter: its name within the file, empty where it has none."""

    module: str
    leaf: str
    adapter: str


def bare(key: str) -> str:
    """A tensor's name without what PEFT puts in front of all of them."""
    while prefix := next((prefix for prefix in PREFIXES if key.startswith(prefix)), ""):
        key = key.removeprefix(prefix)
    return key


def parse(key: str) -> Key | None:
    """What a tensor of a LoRA is; None for any other."""
    found = _KEY.fullmatch(bare(key))
    if found is None or f"{found[2]}.{found[4]}" not in LEAVES:
        return None
    return Key(found[1], f"{found[2]}.{found[4]}", found[3] or "")


def hint(key: str) -> str:
    """' (what a tensor that is no LoRA's may be)', or nothing."""
    return next((f" ({what})" for part, what in HINTS.items() if part in key), "")


class Renamed(NamedTuple):
    """A module is `theirs` + its name in PEFT's model, `ours` + the same name in the base; one of them is empty."""

    theirs: str = ""
    ours: str = ""

    def in_base(self, module: str) -> str:
        """The base's name of a module of the file."""
        return self.ours + module.removeprefix(self.theirs) if module.startswith(self.theirs) else module

    def in_file(self, module: str) -> str:
        """The file's name of a module of the base."""
        return self.theirs + module.removeprefix(self.ours) if module.startswith(self.ours) else module


def renamed(modules: Iterable[str], known: Collection[str] | Mapping[str, object]) -> Renamed:
    """The one wrapper by which the names of a file and of the base differ; none where any name is the base's own."""
    modules = tuple(modules)
    if any(module in known for module in modules):
        return Renamed()
    for module in modules:
        head, dot, rest = module.partition(".")
        if dot and rest in known:
            return Renamed(theirs=f"{head}.")
        heads = {one.partition(".")[0] for one in known if one.partition(".")[2] == module}
        if len(heads) == 1:
            return Renamed(ours=f"{heads.pop()}.")
    return Renamed()


def saved_whole(key: str, modules: Iterable[str]) -> bool:
    """Whether a tensor is of one of these modules (`modules_to_save`)."""
    return any(f".{module}." in f".{bare(key)}" for module in modules)
