"""What contributors add to experts that are only read: made where an expert's own rows are at hand, kept in the run."""

import hashlib
import json
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from moejax.contract import Method, Rows
from moejax.experts import extras
from moejax.experts.folder import EXTRAS, SAMPLES
from moejax.experts.pool import Pool, slots_of
from moejax.models.base import Base
from moejax.parallel import hosts
from moejax.train.run_folder import RunFolder, as_json
from moejax.train.work import Work


def marked(pool: Pool, tasks: Mapping[str, str]) -> Pool:
    """The pool with a note in each expert's info of what a run depends on beside its weights: task and extras."""
    notes = [
        {"task": tasks.get(n), "extras": _of_files(f)} for n, f in zip(pool.names, pool.folders, strict=True)
    ]
    return replace(pool, infos=tuple(i | {"own": note} for i, note in zip(pool.infos, notes, strict=True)))


def digest(key: Any) -> str:
    """A short name for a key: work that a killed command left is gone on with for the same key alone."""
    return hashlib.sha256(json.dumps(as_json(key), sort_keys=True).encode()).hexdigest()[:12]


def _of_files(folder: Path | None) -> str | None:
    """sha256 of the extras in a folder; None where there are none."""
    files = [folder / name for name in (EXTRAS, SAMPLES) if (folder / name).is_file()] if folder else []
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest() if files else None


class Stage(NamedTuple):
    """Where a stage is marked as done: the run, the stage's name, and what it depends on."""

    run: RunFolder
    name: str
    key: Any


def contributed(
    method: Method,
    config: Any,
    base: Base,
    pool: Pool,
    own: Mapping[str, Rows],
    needed: Collection[str],
    stage: Stage,
    work: Work,
) -> Pool:
    """The pool with the extras that are needed, made for experts that lack them and have rows; made once.

    An extra in an expert's folder is used as it is, and nothing is written there; what is made stands in the run's
    `extras`, and is made anew when the expert, its task or what contributors are asked for has changed.
    """
    assert method.contribute is not None
    run, needed = stage.run, sorted(needed)
    keys = dict(zip(pool.names, map(_key, pool.infos), strict=True))
    lacking = {extra: pool.lacking(extra) for extra in needed}
    wanted = [name for name in pool.names if name in own and any(name in some for some in lacking.values())]
    before = run.done(stage.name, stage.key) or {"seconds": 0.0, "experts": {}}
    todo = [name for name in wanted if before["experts"].get(name) != keys[name]]
    if todo:
        start, some = time.perf_counter(), pool.take(todo)
        work = work.within(digest([stage.key, {name: keys[name] for name in todo}]))
        given = method.contribute(config, base, some, {name: own[name] for name in todo}, work)
        hosts.write(partial(_save, run, some.with_extras(given)))
        seconds = before["seconds"] + time.perf_counter() - start
        made = before["experts"] | {name: keys[name] for name in todo}
        run.mark(stage.name, {"seconds": seconds, "experts": made}, stage.key)
    absent = {n: [extra for extra in needed if n in lacking[extra]] for n in wanted}
    return pool.with_extras(
        {n: {extra: _read(run, n, extra, pool) for extra in some} for n, some in absent.items()}
    )


def _key(info: Mapping[str, Any]) -> list[Any]:
    """What an expert's extras depend on beside the method: its weights, and whose rows are its own."""
    return [info["hash"], info["own"]["task"]]


def _save(run: RunFolder, pool: Pool) -> None:
    for name in pool.names:
        run.inside("extras", name).mkdir(parents=True, exist_ok=True)
    pool.save_extras(run.folder / "extras")


def _read(run: RunFolder, name: str, extra: str, pool: Pool) -> Any:
    return extras.read(run.inside("extras", name), extra, pool.sites, slots_of(pool.bank))
