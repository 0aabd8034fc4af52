"""`--shrink`: a recipe as it is, with everything large made small on the spot: base, tokenizer, data, steps.

The base is random, of the same family and options; the data are files with the published sets' columns, read as those.
What a run of it shows is that the recipe runs from end to end, and nothing about its scores.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from moejax.config import Config, rows
from moejax.data.read_hub_set import read_hub_sets, sets_of
from moejax.data.stand_in import write_stand_in
from moejax.data.word_tokenizer import word_tokenizer
from moejax.method_row import MethodRow
from moejax.methods import load
from moejax.models.published import published, small
from moejax.models.weights import random_base, save
from moejax.types import UserError

MOST = {"steps": 2, "batch": 4, "rows": 8, "rank": 2}  # of a method's options, where it has them
EXPERTS, TARGETS, ROWS = 3, 2, 12


def shrink(config: Config) -> Config:
    """The small config; its base and its data are written beside the run's folder, in RUN-stand-in.

    Raises UserError where the base is none of `models.published`, or the data are no published sets.
    """
    if not config.data.source.startswith("hub:"):
        raise UserError(
            f"--shrink is for the recipes, whose data are published sets: data.source is {config.data.source!r}"
        )
    published(config.base.source)
    data = config.data
    held_in, held_out = _spread(data.held_in, EXPERTS), _spread(data.held_out, TARGETS)
    home = Path(f"{config.run}-shrink-stand-in")
    shutil.rmtree(home, ignore_errors=True)
    for name, tasks in _shared_out(data.source, held_in, held_out).items():
        write_stand_in(sets_of(data.source)[name], home / "data" / name, tasks, ROWS)
    _write_base(config, home / "base", read_hub_sets(data.source, home / "data", held_in + held_out, {}))
    return replace(
        config,
        run=f"{config.run}-shrink",
        base=replace(config.base, source=str(home / "base")),
        data=replace(
            data, folder=str(home / "data"), held_in=held_in, held_out=held_out, window=min(data.window, 24),
            train_rows=ROWS, validation_rows=4, test_rows=4,
        ),
        experts=replace(
            config.experts, batch=min(config.experts.batch, MOST["batch"]),
            optimiser=replace(config.experts.optimiser, steps=MOST["steps"]),
        ),
        methods=tuple(dict.fromkeys(_small(row) for row in rows(config))),
        evaluation=replace(config.evaluation, batch=8, samples=50, max_new=2),
    )  # fmt: skip


def _spread(names: Sequence[str], most: int) -> tuple[str, ...]:
    """At most so many, evenly spaced."""
    return tuple(names) if len(names) <= most else tuple(names[i * len(names) // most] for i in range(most))


def _shared_out(source: str, held_in: Sequence[str], held_out: Sequence[str]) -> Mapping[str, list[str]]:
    """Set -> tasks: those with experts among the sets that have such, the others among those that are only scored."""
    sets = sets_of(source)
    trained = [name for name, one in sets.items() if not one.scored]
    scored = [name for name, one in sets.items() if one.scored] or trained
    found: dict[str, list[str]] = {name: [] for name in sets}
    for names, tasks in ((trained, held_in), (scored, held_out)):
        for i, task in enumerate(tasks):
            found[names[i % len(names)]].append(task)
    return {name: tasks or ["spare"] for name, tasks in found.items()}


def _write_base(config: Config, folder: Path, tasks: Sequence[Any]) -> None:
    """A random base whose words are those of the tasks, as Hugging Face lays it out."""
    tokenizer = word_tokenizer(tasks)
    save(random_base(small(config.base.source, len(tokenizer)), config.seed, 1.0), folder)
    tokenizer.save_pretrained(str(folder))


def _small(row: MethodRow) -> str:
    """The row with the options of `MOST` no larger than there, in words."""
    plain = load(row.name).Config()
    now = {field.name: getattr(row.config, field.name) for field in fields(plain)}
    now |= {name: min(now[name], most) for name, most in MOST.items() if isinstance(now.get(name), int)}
    said = [f"{name}={value!r}" for name, value in now.items() if value != getattr(plain, name)]
    return f"{row.name}({', '.join(said)})" if said else row.name
