"""Whether a config can be run, before anything is read."""

from dataclasses import fields, is_dataclass
from math import isfinite
from typing import Any

from moejax import paged
from moejax.config import MADE, TRAINED, Config, first_twice, rows
from moejax.data import generated
from moejax.data import rules as rule_tasks
from moejax.data.read_hub_set import sets_of
from moejax.methods import load
from moejax.types import UserError


def check(config: Config) -> Config:
    """The config, if it can be run. Raises UserError naming the first field that cannot be."""
    data, suite = config.data, config.data.source in MADE
    if not (suite or data.source == "folder" or data.source.startswith(("tfds:", "hub:"))):
        raise UserError(
            f"data.source is {data.source!r}: expected generated, rules, folder, tfds:NAME or hub:NAME"
        )
    if data.source.startswith("hub:"):
        sets_of(data.source)
        if data.folder is None:
            raise UserError(
                f"data.source is {data.source}, but data.folder is not given: say --data-dir FOLDER"
            )
    if suite and data.folder is not None:
        raise UserError(
            f"data.folder is given, but data.source is {data.source}: say --data folder to read it"
        )
    if data.source == "folder" and data.folder is None:
        raise UserError("data.source is folder, but data.folder is not given: say --data-dir FOLDER")
    if not suite and not data.held_in and (config.pool is None or data.source != "folder"):
        raise UserError("data.held_in is empty: name the tasks that experts are trained on")
    if suite and data.general:
        raise UserError(
            "data.general names tasks of a folder or set: for the generated suite give data.suite.public, for lookup "
            "rules data.rules.public"
        )
    if twice := first_twice(data.held_in + data.held_out + data.general):
        where = (
            "data.held_in, data.held_out and data.general"
            if data.general
            else "data.held_in and data.held_out"
        )
        raise UserError(f"task {twice!r} is named twice in {where}: name it once")
    if twice := first_twice(config.seeds):
        raise UserError(f"seed {twice} is in seeds twice: name it once")
    if config.experts.layers is not None and not config.experts.layers:
        raise UserError("experts.layers is empty: name at least one layer, or say None for all of them")
    for name, value, least in _bounds(config):
        if not (isfinite(value) and value >= least):
            raise UserError(f"{name} is {value}: expected {least} or more")
    if config.base.source == TRAINED and config.pool is not None:
        raise UserError(
            "base.source is trained, but experts of a pool were made for another base: name that one by --base"
        )
    if data.source == "generated":
        generated.check(data.suite)
    elif data.source == "rules":
        rule_tasks.check(data.rules)
    every = rows(config)
    if config.pool_slots is not None:
        if config.pool is None:
            raise UserError("pool_slots is given, but no pool that is on disk: say --experts FOLDER")
        for row in every:
            paged.check(row.label, load(row.name))
    return config


def _bounds(record: Any, prefix: str = "") -> list[tuple[str, int | float, int]]:
    """(field, value, least) of numbers: none is negative, and what is counted is at least one."""
    found: list[tuple[str, int | float, int]] = []
    for field in fields(record):
        value, name = getattr(record, field.name), prefix + field.name
        if is_dataclass(value):
            found += _bounds(value, f"{name}.")
        elif (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and not name.startswith(("data.suite", "data.rules"))
        ):
            counted = isinstance(value, int) and field.name != "seed"
            found.append((name, value, 1 if counted else 0))
    return found
