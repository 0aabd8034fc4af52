"""One damaged adapter: what `read` makes of it. A module for tests/fuzz.py."""

import json
import random
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from fuzz import REFUSED
from safetensors.numpy import load_file, save_file

from moejax.experts.expert import Expert
from moejax.experts.files import read, write
from moejax.experts.folder import CONFIG, INFO, WEIGHTS
from moejax.experts.lora import Lora
from moejax.types import UserError

SHAPES = {"layers/attn/q": (8, 8), "layers/mlp/up": (8, 12)}
NAMES = {"layers/attn/q": "model.layers.{}.self_attn.q_proj", "layers/mlp/up": "model.layers.{}.mlp.up_proj"}
SITES = {name.format(i): (path, i) for path, name in NAMES.items() for i in range(12)}
FINGERPRINT = "sha256:tiny"
KINDS = ("plain", "biased", "old", "bf16")
ODD = [
    None, True, False, 0, -1, 1, 2, 3, 7, 2**31, 2**62, 2**63, 10**30, 10**400, 1e308, 5e-324, -0.0, float("nan"),
    float("inf"), "", "x", "../x", "/etc/passwd", "a" * 5000, [], {}, [[]], {"a": {}}, [0], ["q_proj"], "all-linear",
    ".*", "(a|a)*b", "(.*)*x", "((.*.*.*)*.*.*.*)*x", "(" * 600, r"(.|\w|.*.)*" * 40, "[" * 300, r"(?i)q_proj", r"\1",
    "(.{1,999}){1,999}x", {".*": 2, "q_proj": 3}, {"(.*.*.*.*)*x" + "a?" * n: 4 for n in range(200)}, "pissa",
    {f"m{i}": 1 for i in range(5000)}, ["lm_head"],
]  # fmt: skip


def expert(biased):
    """LoRAs of several ranks at every site."""
    rng, loras = np.random.default_rng(0), {}
    for n, site in enumerate(SITES.values()):
        d, f = SHAPES[site[0]]
        a, b, bias = (
            rng.normal(size=size).astype(np.float16) for size in ((1 + n % 3, d), (1 + n % 3, f), f)
        )
        bias = bias.astype(np.float32) if biased else None
        loras[site] = Lora(a.astype(np.float32), b.astype(np.float32), 2.0 + n % 2, bias=bias)
    return Expert("sound", {"task": "sound", "base": FINGERPRINT}, loras)


def loaded(folder):
    return read(folder, SITES, SHAPES, FINGERPRINT)


@cache
def sound(kind):
    """A sound folder, and what is read of it."""
    folder = Path(tempfile.mkdtemp(prefix="sound-")) / "sound"
    write(folder, expert(kind == "biased"), SITES)
    tensors = load_file(folder / WEIGHTS)
    if kind == "old":
        tensors = {
            f"base_model.model.{k}".replace(".weight", ".default.weight"): v for k, v in tensors.items()
        }
    if kind == "bf16":
        tensors = {k: v.astype(np.float16) for k, v in tensors.items()}
    save_file(tensors, folder / WEIGHTS)
    return folder, loaded(folder)[0]


for _kind in KINDS:
    sound(_kind)  # so that no case pays for what is done once


def values_of(tree, path=()):
    """Paths of all values within lists and objects."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path] * bool(path) + [p for key, value in inner for p in values_of(value, (*path, key))]


def change(draw, tree):
    """Replace, remove, rename or add one value anywhere in it."""
    path = draw.choice(values_of(tree) or [()])
    if not path:
        return draw.choice(ODD)
    node = tree
    for key in path[:-1]:
        node = node[key]
    how, key = draw.choice(["odd", "odd", "number", "remove", "rename", "add"]), path[-1]
    if how == "number" and type(node[key]) is int:
        node[key] += draw.choice([-1, 1, 4, -4, 10**6, 2**62])
    elif how == "remove":
        del node[key]
    elif how == "rename" and isinstance(node, dict):
        node[damaged_word(draw, key)] = node.pop(key)
    elif how == "add" and isinstance(node, dict):
        fields = [
            "use_dora",
            "modules_to_save",
            "rank_pattern",
            "alpha_pattern",
            "exclude_modules",
            "new",
            "bias",
        ]
        node[draw.choice([*fields, "layers_to_transform", "layers_pattern", "lora_bias"])] = draw.choice(ODD)
    else:
        node[key] = draw.choice(ODD)
    return tree


def damaged_word(draw, word):
    at = draw.randrange(len(word) + 1)
    odd = draw.choice("x./0\\é\0")
    return draw.choice([word[:at], word[:at] + odd + word[at + 1 :], word + ".x", "", "../" + word, word[5:]])


def bytes_changed(draw, data, lo, hi):
    """The data with some of its bytes drawn anew; at least one is another."""
    before = bytes(data)
    while data == before:
        for _ in range(draw.choice([1, 1, 2, 8])):
            data[draw.randrange(lo, hi)] = draw.randrange(256)
    return data


def damage(draw, folder):
    """Damage one file of the folder; gives what was damaged."""
    file = folder / WEIGHTS
    data = bytearray(file.read_bytes())
    size = int.from_bytes(data[:8], "little")
    kinds = (
        ["config"] * 4
        + ["info", "header", "header", "header bytes", "size", "cut", "longer"]
        + ["payload"] * 2
    )
    how = draw.choice(kinds)
    if how in ("config", "info"):
        path = folder / (CONFIG if how == "config" else INFO)
        if draw.random() < 0.2:
            text = bytes(bytes_changed(draw, bytearray(path.read_bytes()), 0, path.stat().st_size))
            if draw.random() < 0.3:
                text = draw.choice(
                    [b"", b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe", text[: len(text) // 2]]
                )
            path.write_bytes(text)
        else:
            path.write_text(json.dumps(change(draw, json.loads(path.read_text()))))
        return how
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
    return how


def without_hash(folder):
    """Forget what the content was."""
    info = json.loads((folder / INFO).read_text())
    del info["hash"]
    (folder / INFO).write_text(json.dumps(info))


def same(one, other):
    """Whether two experts have equal parts."""
    if one.loras.keys() != other.loras.keys():
        return False
    pairs = [(one.loras[site], other.loras[site]) for site in one.loras]
    return all(
        (a.alpha, a.rslora) == (b.alpha, b.rslora) and all(map(np.array_equal, a[:2] + a[4:], b[:2] + b[4:]))
        for a, b in pairs
    )


def check_sound(found, report):
    """What holds of any expert that was accepted: its sites are the base's, its numbers finite, its shapes fit."""
    assert found.loras and report.hash == found.info["hash"]
    for (path, layer), one in found.loras.items():
        assert (path, layer) in SITES.values()
        d, f = SHAPES[path]
        assert one.a.shape == (len(one.a), d) and one.b.shape == (len(one.a), f) and one.alpha > 0
        assert all(np.isfinite(leaf).all() for leaf in (one.a, one.b, one.bias) if leaf is not None)


def case(seed, folder):
    draw = random.Random(seed)
    whole, before = sound(draw.choice(KINDS))
    folder = folder / "sound"
    shutil.copytree(whole, folder)
    recorded = draw.random() < 0.6
    if not recorded:
        without_hash(folder)
    how = damage(draw, folder)
    said = ""
    try:
        found, report = loaded(folder)
    except UserError as error:
        said = str(error)
    if said:
        assert "\n" not in said and len(said) < 20_000, f"no sentence: {said}"
        return REFUSED
    check_sound(found, report)
    if recorded and report.verified:
        assert how != "payload", "other numbers under a recorded hash"
        assert same(found, before), f"another expert than the sound one, though {how} alone was damaged"
        return "the same"
    assert not recorded or how == "info", f"not verified, though {how} alone was damaged"
    assert not report.verified
    return "unverified"
