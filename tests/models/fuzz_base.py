"""One damaged base: what `load` makes of it. A module for tests/fuzz.py."""

import json
import random
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
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


def values_of(draw, tree, path=()):
    """Paths of all values within lists and objects."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path] * bool(path) + [p for key, value in inner for p in values_of(draw, value, (*path, key))]


def change(draw, tree):
    """Replace, remove, rename or double one value anywhere in it."""
    path = draw.choice(values_of(draw, tree) or [()])
    if not path:
        return draw.choice(ODD)
    node = tree
    for key in path[:-1]:
        node = node[key]
    how, key = draw.choice(["odd", "odd", "number", "remove", "rename"]), path[-1]
    if how == "number" and type(node[key]) is int:
        node[key] += draw.choice([-1, 1, 4, -4, 10**6, 2**62])
    elif how == "remove":
        del node[key]
    elif how == "rename" and isinstance(node, dict):
        value = node.pop(key)
        node[damaged_word(draw, key)] = value
    else:
        node[key] = draw.choice(ODD)
    return tree


def damaged_word(draw, word):
    at = draw.randrange(len(word) + 1)
    return draw.choice(
        [word[:at], word[:at] + draw.choice("x./0\\é") + word[at + 1 :], word + ".x", "", "../" + word]
    )


def bytes_changed(draw, data, lo, hi):
    for _ in range(draw.choice([1, 1, 2, 8])):
        data[draw.randrange(lo, hi)] = draw.randrange(256)
    return data


def damage(draw, folder):
    """Damage one file of the folder; whether only numbers of tensors may differ now."""
    file = draw.choice(sorted(folder.glob("*.safetensors")))
    data = bytearray(file.read_bytes())
    size = int.from_bytes(data[:8], "little")
    how = draw.choice(
        ["config"] * 3 + ["header", "header bytes", "size", "cut", "longer", "payload", "index"]
    )
    if how == "index" and not (folder / "model.safetensors.index.json").exists():
        how = "header"
    if how in ("config", "index"):
        path = folder / ("config.json" if how == "config" else "model.safetensors.index.json")
        if draw.random() < 0.2:
            text = bytes(bytes_changed(draw, bytearray(path.read_bytes()), 0, path.stat().st_size))
            if draw.random() < 0.2:
                text = draw.choice(
                    [b"", b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe", text[: len(text) // 2]]
                )
            path.write_bytes(text)
        else:
            path.write_text(json.dumps(change(draw, json.loads(path.read_text()))))
        return False
    if how == "header":
        header = json.dumps(change(draw, json.loads(data[8 : 8 + size]))).encode()
        data[: 8 + size] = len(header).to_bytes(8, "little") + header
    elif how == "header bytes":
        bytes_changed(draw, data, 8, 8 + size)
    elif how == "size":
        data[:8] = draw.choice([0, 1, size - 1, size + 1, 2**20, 2**40, 2**63, 2**64 - 1]).to_bytes(
            8, "little"
        )
    elif how == "cut":
        del data[draw.randrange(len(data)) :]
    elif how == "longer":
        data += bytes(draw.choice([1, 4, 4096]))
    else:
        bytes_changed(draw, data, 8 + size, len(data))
    file.write_bytes(data)
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
