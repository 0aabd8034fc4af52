"""The stages of train.py, each skipped where it is done: experts, what contributors add, routers."""

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from moejax.config import Config, rows
from moejax.contract import Fitted, Split, count, on_disk
from moejax.evaluate import router_file
from moejax.evaluate.grants import Grants, Target, few
from moejax.experts import files
from moejax.experts.pool import Pool, read_pool
from moejax.experts.report import LoadReport
from moejax.method_row import MethodRow
from moejax.methods import load
from moejax.models.base import Base
from moejax.parallel import hosts
from moejax.stages.scene import SPARE, Scene
from moejax.stages.works import work_of
from moejax.train.bottlenecks import train_bottlenecks
from moejax.train.contributed import Stage, contributed, digest
from moejax.train.differences import differences
from moejax.train.experts import train_together
from moejax.train.fulls import train_fulls
from moejax.train.rows import ArrayRows, seed_of
from moejax.train.run_folder import RunFolder
from moejax.types import NotApplicable, UserError

BESIDE = frozenset({"bottleneck", "delta"})  # kinds that are trained where a row asks for them
TARGET = frozenset(
    {"target_inputs", "target_labels", "test_inputs", "test_labels"}
)  # one fit for each target


def experts(config: Config, scene: Scene, run: RunFolder, console: Console) -> Pool:
    """Train an expert for each held-in task, all in one program; then read them as anybody's folders are read.

    Where a row of the table routes experts of another kind, they are trained too, and stand beside the pool.
    Experts that were given are not trained, and were read with the scene.
    """
    pool, reports = scene.given or _trained(config, scene, run, console, "experts", "lora")
    asked_for = {kind_of(row) for row in rows(config)} & BESIDE if scene.given is None else ()
    for kind in sorted(asked_for):
        other, more = _trained(config, scene, run, console, f"experts@{kind}", kind)
        pool, reports = replace(pool, beside={**pool.beside, kind: other}), reports + more
    for report in reports:
        for warning in report.warnings:
            console.print(f"warning: {warning}", markup=False)
    beside = "".join(f", and beside them {len(p.names)} of kind {kind}" for kind, p in pool.beside.items())
    console.print(f"{len(pool.names)} experts{beside}")
    return pool


def _trained(
    config: Config, scene: Scene, run: RunFolder, console: Console, stage: str, kind: str
) -> tuple[Pool, tuple[LoadReport, ...]]:
    """The experts of one kind in the folder `stage` of the run, trained unless they are there."""
    base = scene.base
    if run.done(stage) is None:
        start, data = time.perf_counter(), {name: _training_rows(scene, name) for name in scene.held_in}
        work = work_of(config, run, stage, progress=console.is_terminal)
        if kind == "lora":
            made = train_together(scene.top, data, config.experts, work)
        elif kind == "delta":
            _check_room(run, base, len(data))
            made = train_fulls(scene.top, data, config.fulls, work)
        else:
            made = train_bottlenecks(scene.top, data, config.bottlenecks, work, config.experts.layers)
        for name, expert in made.items():
            task = scene.tasks[name]
            info = {"task": name, "description": task.instruction, "init": "independent"}
            folder = run.inside(stage, name)
            done = expert._replace(info=info)
            hosts.write(
                partial(files.write, folder, done, base.sites, fingerprint=base.fingerprint, homes=base.homes)
            )
        run.mark(stage, {"seconds": time.perf_counter() - start})
        _remove(work.folder)
    return read_pool(
        run.folder / stage, base.sites, base.shapes, base.layers, base.fingerprint,
        allow_base_mismatch=config.base.allow_mismatch, homes=base.homes,
        ignore_saved=config.base.ignore_saved_modules,
    )  # fmt: skip


def _remove(folder: Path) -> None:
    hosts.write(lambda: shutil.rmtree(folder, ignore_errors=True))


def _check_room(run: RunFolder, base: Base, experts: int) -> None:
    """Raise UserError before anything is trained when so many whole models cannot be kept."""
    size, free = 4 * count(base.params) * experts, shutil.disk_usage(run.folder).free
    if free < size + SPARE:
        raise UserError(
            f"{experts} experts fine-tuned in full take {size / 1e6:.0f} MB, but {free / 1e6:.0f} MB are free in "
            f"{run.folder}: make room, give another --run, or leave the rows of kind delta out of methods"
        )


def kind_of(row: MethodRow) -> str:
    """The kind of experts that a row of the table routes; empty: any."""
    return load(row.name).kind(row.config)


def pool_for(row: MethodRow, pool: Pool) -> Pool:
    """The pool of the kind that a row routes; the one given where there is no such beside it."""
    return pool.beside.get(kind_of(row), pool)


def _training_rows(scene: Scene, task: str) -> ArrayRows:
    rows = scene.rows[task].get("train")
    if rows is None:
        raise UserError(
            f"task {task!r} has no training rows for an expert: add some, or take it out of data.held_in"
        )
    return rows


def contributions(config: Config, scene: Scene, pool: Pool, run: RunFolder, console: Console) -> Pool:
    """Let contributors add what the methods of the table need of them, once for each method."""
    for row in _once_a_method(rows(config)):
        method = load(row.name)
        if method.contribute is None or kind_of(row) not in pool.kinds:
            continue
        stage, own = f"contribute/{row.name}", scene.own_rows()
        work = work_of(config, run, "contribute", row.name, progress=console.is_terminal)
        if scene.given is not None:
            where = Stage(run, stage, asked(row))
            same = [load(r.name).extras(r.config) for r in rows(config) if r.name == row.name]
            needed = {on_disk(extra, scene.base) for extra in frozenset().union(*same)}
            pool = contributed(method, row.config, scene.top, pool, own, needed, where, work)
            _remove(work.folder)
        elif run.done(stage, key := asked(row)) is None:
            start = time.perf_counter()
            given = method.contribute(row.config, scene.top, pool, own, work)
            hosts.write(partial(pool.with_extras(given).save_extras, run.folder / "experts"))
            run.mark(stage, {"seconds": time.perf_counter() - start}, key)
            _remove(work.folder)
    return pool


def asked(row: MethodRow) -> dict[str, Any]:
    """What contributors are asked for: the settings that their work depends on."""
    return {name: getattr(row.config, name) for name in load(row.name).contributed}


def _once_a_method(some: Sequence[MethodRow]) -> Iterator[MethodRow]:
    """The first row of each method. Raises UserError when another row of it asks contributors for something else."""
    first: dict[str, MethodRow] = {}
    for row in some:
        known = first.setdefault(row.name, row)
        if changed := differences(asked(known), asked(row)):
            raise UserError(
                f"methods {known.label!r} and {row.label!r} ask contributors for different things "
                f"({'; '.join(changed)}): give both the same, or each a run of its own"
            )
        if known is row:
            yield row


def routers(config: Config, scene: Scene, pool: Pool, run: RunFolder, console: Console) -> None:
    """Fit every row of the table; one that reads a target is fitted once for each held-out task."""
    for row in rows(config):
        method, start = load(row.name), time.perf_counter()
        needs = method.needs(row.config)
        targets: Sequence[str | None] = scene.held_out if needs & TARGET else (None,)
        stage, key = f"routers/{row.label}", key_of(row, pool)
        if run.done(stage, key) is not None:
            continue
        try:
            _has_kind(row, pool_for(row, pool))
            _has_tasks(scene, needs)
            fitted = [_fit(config, scene, pool, run, row, target) for target in targets]
        except NotApplicable as error:
            run.mark(stage, {"not_applicable": str(error)}, key)
            continue
        seconds = time.perf_counter() - start
        trained, chosen = (fitted[0].trained, dict(fitted[0].chosen)) if fitted else (0, {})
        run.mark(stage, {"seconds": seconds, "trained": trained, "chosen": chosen}, key)
        for target in targets:
            _remove(work_of(config, run, *_place(row, target)).folder)
        console.print(f"{row.label}: fitted in {seconds:.0f} s", markup=False)


def _has_tasks(scene: Scene, needs: frozenset[str]) -> None:
    """Raise NotApplicable when no task is of the kind that a row with these needs is for."""
    if needs & TARGET and not scene.held_out:
        raise NotApplicable("no task is held out")
    if "test_task" in needs and not scene.tasks_of:
        raise NotApplicable("no task is an expert's own")


def _has_kind(row: MethodRow, pool: Pool) -> None:
    """Raise NotApplicable when the experts are not of the kind that a row routes."""
    kind = kind_of(row)
    if kind and kind not in pool.kinds:
        raise NotApplicable(
            f"it routes experts of kind {kind}, the pool's are {', '.join(sorted(pool.kinds))}"
        )


def key_of(row: MethodRow, pool: Pool) -> dict[str, Any]:
    """What a row's router and all that is made with it depend on."""
    pool = pool_for(row, pool)
    infos = dict(zip(pool.names, pool.infos, strict=True))
    key = {"config": asdict(row.config), "experts": {name: info["hash"] for name, info in infos.items()}}
    noted = ("task", "extras") if load(row.name).card.extras else ("task",)
    own = {name: [info["own"][note] for note in noted] for name, info in infos.items() if "own" in info}
    return key | ({"own": own} if own else {})


def _fit(
    config: Config, scene: Scene, pool: Pool, run: RunFolder, row: MethodRow, target: str | None
) -> Fitted:
    """One router, fitted on what its method may read, written into the run."""
    method, pool = load(row.name), pool_for(row, pool)
    needs = method.needs(row.config)
    grants = Grants(needs, scene.own(), _target(config, scene, target), scene.public())
    work = work_of(config, run, *_place(row, target)).within(digest(key_of(row, pool)))
    allowed = pool.allow(*method.extras(row.config))
    fitted = method.fit(row.config, scene.top, allowed, grants, work)
    where = run.router(row.label, target)
    hosts.write(lambda: router_file.save(where, method, row.config, scene.base, pool, fitted))
    return fitted


def _place(row: MethodRow, target: str | None) -> tuple[str, str]:
    """Where a fit works, and the name of its stage in metrics.jsonl."""
    return "routers", row.label if target is None else f"{row.label}@{target}"


def _target(config: Config, scene: Scene, name: str | None) -> Target | None:
    if name is None:
        return None
    rows = scene.split(name).train
    if isinstance(rows, ArrayRows):
        rows = few(rows, config.evaluation.shots, seed_of(f"shots:{name}", config.seed))
    return Target(name, Split(rows, rows), scene.rows[name]["test"])
