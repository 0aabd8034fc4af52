"""Files as a stranger has them: a base, two experts and four tasks, in folders."""

from pathlib import Path

import numpy as np
import tiny_folder

from moejax.data import generated
from moejax.data.folder import write_folder
from moejax.data.generated import SuiteConfig
from moejax.experts import files
from moejax.experts.expert import Expert
from moejax.experts.lora import Lora
from moejax.models.base import Base
from moejax.models.weights import load

TOP = 1  # the layer that the experts adapt
SITES = ("layers/attn/q", "layers/mlp/down")


def expert(base: Base, folder: Path, rank: int = 2, layer: int = TOP, **info) -> Path:
    """One expert's folder, as it may come from anywhere; its weights follow from its name."""
    rng, loras = np.random.default_rng(sum(map(ord, folder.name))), {}
    for path in SITES:
        d, f = base.shapes[path]
        a, b = rng.normal(size=(rank, d)).astype(np.float32), rng.normal(size=(rank, f)).astype(np.float32)
        loras[path, layer] = Lora(a, b, 2.0 * rank)
    files.write(folder, Expert(folder.name, info, loras), base.sites, fingerprint=base.fingerprint)
    return folder


def tasks(folder: Path, **sizes) -> Path:
    """Three skills, `animal`, `place` and `food`, and a task that asks for the first two."""
    sizes = {"train": 12, "pair_train": 18, "validation": 4, "test": 6} | sizes
    suite = generated.generate(
        SuiteConfig(kinds=("animal", "place", "food"), pairs=(("animal", "place"),), clauses=(2, 3), **sizes)
    )
    write_folder((*suite.held_in, *suite.held_out), folder)
    return folder


def everything(root: Path) -> Path:
    """`base`, `experts` (one named as its task, one that says its task) and `data` in a folder."""
    base = load(tiny_folder.encoder(root / "base"))
    expert(base, root / "experts" / "animal")
    expert(base, root / "experts" / "ann", rank=3, task="place")
    tasks(root / "data")
    return root
