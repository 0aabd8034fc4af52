"""The tasks of a run: made on the spot, of a folder, a TFDS or a published set; prepared once, cut to its sizes."""

from dataclasses import replace
from pathlib import Path

from moejax.config import MADE, Config
from moejax.data import generated, prepared
from moejax.data import rules as rule_tasks
from moejax.data.folder import named, read_folder
from moejax.data.read_hub_set import read_hub_sets
from moejax.data.tasks import SPLITS, Task
from moejax.data.tfds_sets import read_tfds
from moejax.evaluate.owners import Experts, split_tasks
from moejax.types import UserError


def read_tasks(
    config: Config, folder: Path, experts: Experts | None = None
) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, Task]]:
    """Names of held-in and held-out tasks, and the tasks, prepared once in `folder` and cut to the config's sizes.

    Tasks that are neither are public; they come last.
    experts: those that were trained elsewhere; they decide where the config does not say what is held in and out.
    """
    data = config.data
    if data.source in MADE:
        if data.source == "generated":
            suite = generated.generate(replace(data.suite, seed=config.seed))
        else:
            suite = rule_tasks.rules(replace(data.rules, seed=config.seed))
        held_in, held_out, public = (tuple(task.name for task in tasks) for tasks in suite)
        made = suite.held_in + suite.held_out + suite.public
        found = prepared.read_prepared(prepared.prepare(made, folder, "generated"))
    else:
        held_in, held_out, public = data.held_in, data.held_out, data.general
        every = experts is not None and data.source == "folder" and not (held_in and held_out)
        found = _given(config, None if every else held_in + held_out + public, folder)
        if every:
            names = [
                named(name, {task.name: task for task in found}, data.folder or "").name for name in public
            ]
            names = [task.name for task in found if task.name not in names]
            held_in, held_out = split_tasks(names, experts or {}, held_in, held_out)
    limits, cut = _limits(config), {}
    for task in found:
        rows = {split: task.rows[split][: limits[split]] for split in SPLITS}
        cut[task.name] = replace(task, rows=rows | {"test": rows[config.evaluation.split]})
    names = held_in + held_out
    if lacking := next((name for name in names if not cut[name].rows["test"]), None):
        raise UserError(
            f"task {lacking!r} has no {config.evaluation.split} rows to answer: add some, or name the tasks to use by "
            "--data.held-in and --data.held-out"
        )
    if experts is not None:
        names = tuple(sorted(names))  # the order of the rows, which one more expert must not change
    return held_in, held_out, {name: cut[name] for name in names + public}


def _limits(config: Config) -> dict[str, int | None]:
    """Most rows of each split."""
    data = config.data
    return {"train": data.train_rows, "validation": data.validation_rows, "test": data.test_rows}


def _given(config: Config, names: tuple[str, ...] | None, folder: Path) -> tuple[Task, ...]:
    """Tasks of a TFDS set; or of a folder of JSONL (None: all) or of published sets, prepared once for each content."""
    data = config.data
    if data.source.startswith("tfds:"):
        given = read_tfds(data.source.removeprefix("tfds:"), data.fields, data.folder)
        found = {task.name: task for task in given}
        return tuple(named(name, found, data.source) for name in names or ())
    if data.source.startswith("hub:"):
        given = read_hub_sets(data.source, data.folder or "", names or (), _limits(config))
        return prepared.read_prepared(prepared.prepare(given, folder))
    return prepared.read_prepared(prepared.prepare(read_folder(data.folder or "", names), folder))
