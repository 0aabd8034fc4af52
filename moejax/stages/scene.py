"""What a run works on: the base with its label vectors, the tasks, and all their rows as arrays."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

from moejax.config import TRAINED, Config, rows
from moejax.contract import Split
from moejax.data.batch import collate, widest
from moejax.data.encode import encode
from moejax.data.tasks import SPLITS, Task, data_hash, labels
from moejax.embed.embedder import Embedder, said
from moejax.evaluate import owners
from moejax.evaluate.asked import Asked, ask
from moejax.evaluate.labels import label_vectors
from moejax.evaluate.owners import NoRows, OwnData, experts_of, said_tasks
from moejax.experts.member import OnBase
from moejax.experts.open_pool import open_pool
from moejax.experts.pool import Pool, folders_of, read_pool
from moejax.experts.report import LoadReport
from moejax.methods import load
from moejax.models import minilm, weights
from moejax.models.base import Base
from moejax.models.block import slice_layers
from moejax.parallel import hosts
from moejax.parallel.agree import agree
from moejax.stages.bases import load_base, trained
from moejax.stages.read_tasks import read_tasks
from moejax.train import contributed, features
from moejax.train.rows import ArrayRows
from moejax.train.rows import stack as rows_stack
from moejax.types import Batch, UserError

SPARE = 200_000_000  # bytes that experts, routers, checkpoints and answers of a run stay below
Given = tuple[Pool, tuple[LoadReport, ...]]


class Scene(NamedTuple):
    """`base` is whole; `top` has its layers from the lowest adapted one up, and rows carry what enters them.

    tasks_of: expert -> the held-in task that is its own. given: experts that were not trained here, as read.
    asked: of a base that writes, the test rows as it is asked.
    """

    base: Base
    top: Base
    held_in: tuple[str, ...]
    held_out: tuple[str, ...]
    tasks: dict[str, Task]
    rows: dict[str, dict[str, ArrayRows]]
    tasks_of: Mapping[str, str] = {}
    given: Given | None = None
    asked: Mapping[str, Asked] = {}

    def split(self, task: str) -> Split:
        """Training and validation rows of a task; asking for those that it lacks raises NotApplicable."""
        lacking = {s: NoRows(f"task {task} has no {s} rows") for s in SPLITS}
        return Split(*(self.rows[task].get(s, lacking[s]) for s in ("train", "validation")))

    def public(self) -> Split | None:
        """Training and validation rows of all public tasks; None where there are no such tasks."""
        names = [name for name in self.tasks if name not in self.held_in + self.held_out]
        return Split(*(joined(self.rows, names, s) for s in ("train", "validation"))) if names else None

    def own(self) -> OwnData:
        """Expert -> training and validation rows of its own task."""
        return OwnData({name: self.split(task) for name, task in self.tasks_of.items()})

    def own_rows(self) -> dict[str, ArrayRows]:
        """Expert -> training rows of its own task; one without any is left out."""
        rows = {name: self.rows[task].get("train") for name, task in self.tasks_of.items()}
        return {name: some for name, some in rows.items() if some is not None}

    def experts_of(self) -> dict[str, str]:
        """Task -> the expert that is its own, in the order of the held-in tasks."""
        found = experts_of(self.tasks_of)
        return {task: found[task] for task in self.held_in if task in found}

    def groups(self, task: str) -> np.ndarray:
        """The group that each test row counts in."""
        return np.array([row.group for row in self.tasks[task].rows["test"]])


def make_scene(config: Config, run: Any, console: Console) -> Scene:
    """Read base and tasks, turn all rows into arrays, and cache activations below the lowest adapted layer."""
    base = load_base(config, _source(config, run, console))
    given = None if config.pool is None else _read_given(config.pool, config, base)
    experts = None if given is None else said_tasks(given[0])
    if given is not None:
        agree(experts={name: info["hash"] for name, info in zip(given[0].names, given[0].infos, strict=True)})
    held_in, held_out, tasks = read_tasks(config, run.folder / "data", experts)
    tasks_of = {name: name for name in held_in} if experts is None else owners.tasks_of(experts, held_in)
    for line in owners.said(experts, tasks_of, held_in, held_out) if experts is not None else ():
        console.print(line, markup=False, soft_wrap=True)
    if experts is not None:
        owners.check_public(experts, [name for name in tasks if name not in held_in + held_out])
    run.bind(data=data_hash(tasks.values()), base=base.identity)
    phrases = labels(tasks.values())
    if base.kind == "encoder":
        base = _labelled(base, phrases)
    base = replace(base, embedder=_embedder(config, base, run, console))
    parts = [(name, s, task.rows[s]) for name, task in tasks.items() for s in SPLITS if task.rows[s]]
    encoded = [
        encode(tasks[n], rows, base.tokenizer, config.data.window, base.kind, phrases) for n, _, rows in parts
    ]
    width, options = widest(encoded)
    whole = rows_stack([collate(part, width=width, options=options) for part in encoded])
    cut = sum(part.cut for part in encoded)
    shortened = f"; {cut} of them cut to fit" if cut else ""
    console.print(f"{len(tasks)} tasks, {len(whole.tokens)} texts of up to {width} tokens{shortened}")
    compared = {name: tasks[name] for name in held_in + held_out}
    asked = (
        {} if base.kind == "encoder" else ask(base, compared, config.data.window, config.evaluation.max_new)
    )
    lowest = min(config.experts.layers or (0,))
    if given is not None:
        given, lowest = (contributed.marked(given[0], tasks_of), given[1]), given[0].lowest
    if base.kind == "seq2seq" or any(one.requests for one in asked.values()):
        lowest = 0  # what is written runs through all layers, and a seq2seq is run whole
    top, whole = _upper(base, whole, lowest, run, console)
    words = [said(row.input, row.instruction) for *_, some in parts for row in some]
    queried = any(load(row.name).query for row in rows(config))
    if queried:
        whole = whole._replace(query=_vectors(base, words))
    asked = _ready(asked, base, lowest, queried, run, console)
    return Scene(base, top, held_in, held_out, tasks, _indexed(whole, words, parts), tasks_of, given, asked)


def _source(config: Config, run: Any, console: Console) -> str:
    """Where the base is read: as the configuration says, or where the run has trained it."""
    if config.base.source != TRAINED:
        return config.base.source
    held_in, held_out, tasks = read_tasks(config, run.folder / "data")
    return trained(config, tasks, [name for name in tasks if name not in held_in + held_out], run, console)


def _vectors(base: Base, words: Sequence[str]) -> np.ndarray:
    assert base.embedder is not None
    return base.embedder(words)


def _ready(
    asked: Mapping[str, Asked], base: Base, lowest: int, queried: bool, run: Any, console: Console
) -> dict[str, Asked]:
    """The test rows as a decoder is asked, with what enters the lowest layer that runs, and sentence vectors."""

    def ready(whole: Batch, words: list[str]) -> Batch:
        whole = _upper(base, whole, lowest, run, console)[1]
        return whole._replace(query=_vectors(base, words)) if queried else whole

    found, made = {}, {}
    for name, one in asked.items():
        parts = {}
        for part in ("lines", "requests"):
            if (rows := getattr(one, part)) is not None:
                if id(rows.whole) not in made:  # all tasks share one batch
                    made[id(rows.whole)] = ready(rows.whole, rows.words)
                parts[part] = replace(rows, whole=made[id(rows.whole)])
        found[name] = one._replace(**parts)
    return found


def _labelled(base: Base, phrases: Sequence[str]) -> Base:
    """The base with its label vectors, and the model beside it with its own."""
    beside = base.beside and _labelled(base.beside, phrases)
    return replace(base, labels=label_vectors(base, phrases), beside=beside)


def _embedder(config: Config, base: Base, run: Any, console: Console) -> Embedder:
    """The encoder of sentence vectors; each text is embedded once in a run."""
    if not config.embedder:
        encoder = base
    else:
        encoder = weights.load(minilm.installed() if config.embedder == "minilm" else config.embedder)
    return Embedder(encoder, run.folder / "vectors", console.is_terminal)


def _read_given(folder: str, config: Config, base: Base) -> Given:
    """Experts that were trained elsewhere. Raises UserError as `read_pool` and `open_pool` do."""
    if config.pool_slots is not None:
        known = OnBase(
            base.sites, base.shapes, base.fingerprint, config.base.allow_mismatch, base.homes,
            config.base.ignore_saved_modules,
        )  # fmt: skip
        experts = [(path.name, path) for path in folders_of(Path(folder))]
        return open_pool(experts, known, base.layers, config.pool_slots)
    return read_pool(
        folder, base.sites, base.shapes, base.layers, base.fingerprint,
        allow_base_mismatch=config.base.allow_mismatch, homes=base.homes,
        ignore_saved=config.base.ignore_saved_modules,
    )  # fmt: skip


def _upper(base: Base, whole: Batch, lowest: int, run: Any, console: Console) -> tuple[Base, Batch]:
    """The base from layer `lowest` up, and the rows with what enters it, which is kept in the run's folder."""
    if not lowest:
        return base, whole
    settings = base.model.config
    size = features.size(whole, settings.width)
    numbers = " ".join(
        sorted({str(leaf.dtype) for leaf in jax.tree.leaves(base.params)})
    )  # int8 too, if quantised
    path = run.share(f"features-{features.key(whole, base.fingerprint, numbers, lowest)}.npy")
    hosts.first(lambda: _check_room(path, size))
    console.print(f"activations below layer {lowest}: {size / 1e6:.0f} MB in {path}")
    cached = features.features(base.model, base.params, whole, lowest, path, progress=console.is_terminal)
    top = replace(base, params=slice_layers(base.params, lowest, base.layers))
    return top, whole._replace(prefix=cached)


def _check_room(path: Path, size: int) -> None:
    """Raise UserError before anything is computed when a file of this size, and a run beside it, cannot be kept."""
    free = shutil.disk_usage(path.parent).free
    if not path.exists() and free < size + SPARE:
        raise UserError(
            f"{path} would take {size / 1e6:.0f} MB and the rest of the run up to {SPARE / 1e6:.0f} MB, but "
            f"{free / 1e6:.0f} MB are free there: make room, give another --run, or cut data.train_rows"
        )


def _indexed(whole: Batch, words: list[str], parts: list) -> dict[str, dict[str, ArrayRows]]:
    rows: dict[str, dict[str, ArrayRows]] = {}
    at = 0
    for name, split, some in parts:
        rows.setdefault(name, {})[split] = ArrayRows(whole, np.arange(at, at + len(some)), words)
        at += len(some)
    return rows


def joined(
    rows: Mapping[str, Mapping[str, ArrayRows]], names: Sequence[str], split: str
) -> ArrayRows | NoRows:
    """The rows of a split of several tasks, one after the other."""
    some = [rows[name][split] for name in names if split in rows[name]]
    if not some:
        return NoRows(f"tasks {', '.join(names)} have no {split} rows")
    return replace(some[0], index=np.concatenate([one.index for one in some]))
