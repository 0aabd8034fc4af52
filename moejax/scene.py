"""What a run works on: the base with its label vectors, the tasks, and all their rows as arrays."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from rich.console import Console

from moejax.adapted import Adapted, vectors
from moejax.config import Config
from moejax.contract import Split
from moejax.data import generated, prepared
from moejax.data.batch import collate, widest
from moejax.data.encode import encode
from moejax.data.folder import named, read_folder
from moejax.data.tasks import SPLITS, Task, data_hash, labels
from moejax.data.tfds_sets import read_tfds
from moejax.experts.bank import stack
from moejax.models import minilm, weights
from moejax.models.base import Base
from moejax.models.block import slice_layers
from moejax.train import features
from moejax.train.rows import ArrayRows
from moejax.train.rows import stack as rows_stack
from moejax.types import Batch, UserError


class Scene(NamedTuple):
    """`base` is whole; `top` has its layers from the lowest adapted one up, and rows carry what enters them."""

    base: Base
    top: Base
    held_in: tuple[str, ...]
    held_out: tuple[str, ...]
    tasks: dict[str, Task]
    rows: dict[str, dict[str, ArrayRows]]

    def split(self, task: str) -> Split:
        """Training and validation rows of a task."""
        return Split(self.rows[task]["train"], self.rows[task]["validation"])

    def groups(self, task: str) -> np.ndarray:
        """The group that each test row counts in."""
        return np.array([row.group for row in self.tasks[task].rows["test"]])


def load_base(config: Config) -> Base:
    """The base that the config names. Raises UserError when it cannot be read or is not an encoder."""
    source = minilm.installed() if config.base.source == "minilm" else config.base.source
    base = weights.load(source, dtype=config.base.dtype)
    if base.kind != "encoder":
        raise UserError(f"{source} predicts tokens: train.py and eval.py take an encoder (BERT, MiniLM) here")
    settings = replace(base.model.config, remat=config.base.remat)
    return replace(base, model=type(base.model)(settings))


def read_tasks(config: Config, folder: Path) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, Task]]:
    """Names of held-in and held-out tasks, and the tasks, prepared once in `folder` and cut to the config's sizes."""
    data = config.data
    if data.source == "generated":
        suite = generated.generate(replace(data.suite, seed=config.seed))
        held_in, held_out = (tuple(task.name for task in tasks) for tasks in suite)
        found = prepared.read_prepared(prepared.prepare(suite.held_in + suite.held_out, folder, "generated"))
    else:
        held_in, held_out = data.held_in, data.held_out
        found = _given(config, held_in + held_out, folder)
    limits = {"train": data.train_rows, "validation": data.validation_rows, "test": data.test_rows}
    cut = {}
    for task in found:
        rows = {split: task.rows[split][: limits[split]] for split in SPLITS}
        cut[task.name] = replace(task, rows=rows | {"test": rows[config.evaluation.split]})
    return held_in, held_out, {name: cut[name] for name in held_in + held_out}


def _given(config: Config, names: tuple[str, ...], folder: Path) -> tuple[Task, ...]:
    """Tasks of a prepared TFDS set, or of a folder of JSONL, which is prepared once for each content."""
    data = config.data
    if data.source.startswith("tfds:"):
        given = read_tfds(data.source.removeprefix("tfds:"), data.fields, data.folder)
        found = {task.name: task for task in given}
        return tuple(named(name, found, data.source) for name in names)
    return prepared.read_prepared(prepared.prepare(read_folder(data.folder or "", names), folder))


def make_scene(config: Config, run: Any, console: Console) -> Scene:
    """Read base and tasks, turn all rows into arrays, and cache activations below the lowest adapted layer."""
    base = load_base(config)
    held_in, held_out, tasks = read_tasks(config, run.folder / "data")
    run.bind(data=data_hash(tasks.values()), base=base.fingerprint)
    phrases = labels(tasks.values())
    base = replace(base, labels=label_vectors(base, phrases))
    parts = [(name, s, task.rows[s]) for name, task in tasks.items() for s in SPLITS if task.rows[s]]
    encoded = [
        encode(tasks[n], rows, base.tokenizer, config.data.window, base.kind, phrases) for n, _, rows in parts
    ]
    width, options = widest(encoded)
    whole = rows_stack([collate(part, width=width, options=options) for part in encoded])
    cut = sum(part.cut for part in encoded)
    shortened = f"; {cut} of them cut to fit" if cut else ""
    console.print(f"{len(tasks)} tasks, {len(whole.tokens)} texts of up to {width} tokens{shortened}")
    lowest = min(config.experts.layers or (0,))
    top = base
    if lowest:
        size = features.size(whole, base.model.config.width)
        console.print(
            f"activations below layer {lowest}: {size / 1e6:.0f} MB in {run.folder / 'features.npy'}"
        )
        cached = features.features(
            base.model, base.params, whole, lowest, run.folder / "features.npy", progress=console.is_terminal
        )
        whole = whole._replace(prefix=cached)
        top = replace(base, params=slice_layers(base.params, lowest, base.layers))
    return Scene(base, top, held_in, held_out, tasks, _indexed(whole, parts))


def _indexed(whole: Batch, parts: list) -> dict[str, dict[str, ArrayRows]]:
    rows: dict[str, dict[str, ArrayRows]] = {}
    at = 0
    for name, split, some in parts:
        rows.setdefault(name, {})[split] = ArrayRows(whole, np.arange(at, at + len(some)))
        at += len(some)
    return rows


def label_vectors(base: Base, phrases: list[str], size: int = 64) -> Float[Array, "n d"]:
    """Unit vectors of label phrases by the bare base, averaged over their own tokens."""
    arrays = {"params": base.params, "bank": stack([], base.shapes, base.layers), "router": {}}
    found = []
    for start in range(0, len(phrases), size):
        some = phrases[start : start + size]
        text = base.tokenizer(
            some + [""] * (size - len(some)),
            padding=True,
            return_special_tokens_mask=True,
            return_tensors="np",
        )
        mask = text["attention_mask"].astype(bool)
        pool = mask & ~text["special_tokens_mask"].astype(bool)
        batch = Batch(
            jnp.asarray(text["input_ids"], jnp.int32), jnp.asarray(mask), jnp.asarray(mask), jnp.asarray(pool)
        )
        found.append(jax.jit(lambda a, b: vectors(Adapted(base.model), a, b)[0])(arrays, batch)[: len(some)])
    return jnp.concatenate(found)
