"""One damaged base: what `load` makes of it. A module for tests/fuzz.py."""

import json
import random
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from damage import TENSORS, of_json, of_tensors
from family_cases import CASES
from fuzz import REFUSED
from safetensors.numpy import save_file

from moejax.models.weights import hf_tensors, load, random_base, save
from moejax.types import UserError

NAMES = ("llama", "gemma3", "gpt2", "roberta")
ODD = [
    None, True, False, 0, -1, 1, 2, 3, 7, 2**31 - 1, 2**31, 2**63, 10**30, 10**400, 1e308, -0.0, float("nan"),
    float("inf"), "", "x", "../x", "/etc/passwd",
    "a" * 5000, [], {}, [[]], {"a": {}}, [0], ["full_attention"], "llama3",
]  # fmt: skip


@cache
def sound(name):
    """A sound folder, in one file or in shards with an index, and its tensors."""
    folder = Path(tempfile.mkdtemp(prefix="sound-"))
    base = random_base(CASES[name].config)
    save(base, folder)
    tensors = hf_tensors(base)
    if name in ("gemma3", "gpt2"):
        (folder / "model.safetensors").unlink()
        where = {tensor: f"model-{i % 3}.safetensors" for i, tensor in enumerate(sorted(tensors))}
        for file in set(where.values()):
            save_file({t: tensors[t] for t in where if where[t] == file}, folder / file)
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": where})
        )
    return folder, tensors


for _name in NAMES:
    load(sound(_name)[0])  # so that no case pays for what is done once


def damage(draw, folder):
    """Damage one file of the folder; whether only numbers of tensors may differ now."""
    how, index = draw.choice(["config"] * 3 + [*TENSORS, "index"]), folder / "model.safetensors.index.json"
    if how == "index" and not index.exists():
        how = "header"
    if how in ("config", "index"):
        of_json(draw, folder / "config.json" if how == "config" else index, ODD)
    else:
        of_tensors(draw, draw.choice(sorted(folder.glob("*.safetensors"))), how, ODD)
    return how == "payload"


def case(seed, folder):
    draw = random.Random(seed)
    whole, tensors = sound(draw.choice(NAMES))
    folder = folder / "base"
    shutil.copytree(whole, folder)
    payload = damage(draw, folder)
    try:
        found = hf_tensors(load(folder))
    except UserError as error:
        return REFUSED if "\n" not in str(error) and len(str(error)) < 20_000 else f"no sentence: {error}"
    if payload:
        assert all(np.isfinite(values).all() for values in found.values())
        return "other numbers"
    wrong = [name for name, values in found.items() if not np.array_equal(tensors[name], values)]
    assert not wrong, f"{wrong[0]} is another tensor than in the sound folder"
    return "the same tensors"
