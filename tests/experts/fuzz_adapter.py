"""One damaged adapter: what `read` makes of it. A module for tests/fuzz.py."""

import json
import random
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from damage import TENSORS, of_json, of_tensors
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

FIELDS = (
    "use_dora modules_to_save rank_pattern alpha_pattern exclude_modules new bias layers_to_transform "
    "layers_pattern lora_bias"
).split()


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


def damage(draw, folder):
    """Damage one file of the folder; gives what was damaged."""
    how = draw.choice(["config"] * 4 + ["info", "header", *TENSORS, "payload"])
    if how in ("config", "info"):
        of_json(draw, folder / (CONFIG if how == "config" else INFO), ODD, FIELDS)
    else:
        of_tensors(draw, folder / WEIGHTS, how, ODD, FIELDS)
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
