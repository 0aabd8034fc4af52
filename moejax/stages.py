"""The stages of a run, each skipped where it is done: experts, what contributors add, routers, answers, results."""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from moejax.config import Config, plain, rows
from moejax.contract import Fitted
from moejax.evaluate import router_file
from moejax.evaluate.compare import Answers, Truth, result, sight
from moejax.evaluate.grants import Grants, Target, few
from moejax.evaluate.program import Cost, answers, cost
from moejax.evaluate.results import provenance
from moejax.experts import files
from moejax.experts.pool import Pool, read_pool
from moejax.method_row import MethodRow, short
from moejax.methods import load
from moejax.scene import Scene
from moejax.train import tree_file
from moejax.train.experts import train_together
from moejax.train.rows import ArrayRows, seed_of
from moejax.train.run_folder import RunFolder, read_json
from moejax.train.work import Work
from moejax.types import NotApplicable, UserError

TARGET = frozenset(
    {"target_inputs", "target_labels", "test_inputs", "test_labels"}
)  # one fit for each target


def work_of(config: Config, run: RunFolder, *name: str, progress: bool = False) -> Work:
    """Where a stage keeps what it has done so far."""
    folder = run.inside("work", *name)
    return Work(folder, config.seed, run.log, config.checkpoint.every, progress)


def make_experts(config: Config, scene: Scene, run: RunFolder, console: Console) -> Pool:
    """Train an expert for each held-in task, all in one program; then read them as anybody's folders are read."""
    if run.done("experts") is None:
        start, data = time.perf_counter(), {name: scene.rows[name]["train"] for name in scene.held_in}
        work = work_of(config, run, "experts", progress=console.is_terminal)
        for name, expert in train_together(scene.top, data, config.experts, work).items():
            task = scene.tasks[name]
            info = {"task": name, "description": task.instruction, "init": "independent"}
            expert = expert._replace(info=info)
            files.write(run.expert(name), expert, scene.base.sites, fingerprint=scene.base.fingerprint)
        run.mark("experts", {"seconds": time.perf_counter() - start})
    pool, reports = read_pool(
        run.folder / "experts", scene.base.sites, scene.base.shapes, scene.base.layers, scene.base.fingerprint,
        allow_base_mismatch=config.base.allow_mismatch,
    )  # fmt: skip
    for report in reports:
        for warning in report.warnings:
            console.print(f"warning: {warning}", markup=False)
    console.print(f"{len(pool.names)} experts")
    return pool


def contribute(config: Config, scene: Scene, pool: Pool, run: RunFolder, console: Console) -> Pool:
    """Let contributors add what the methods of the table need of them, once for each method."""
    for row in _once_a_method(rows(config)):
        method = load(row.name)
        if method.contribute is None:
            continue
        stage = f"contribute/{row.name}"
        if run.done(stage, asdict(row.config)) is None:
            start, own = time.perf_counter(), {name: scene.rows[name]["train"] for name in pool.names}
            work = work_of(config, run, "contribute", row.name, progress=console.is_terminal)
            given = method.contribute(row.config, scene.top, pool, own, work)
            pool.with_extras(given).save_extras(run.folder / "experts")
            shutil.rmtree(work.folder, ignore_errors=True)
            run.mark(stage, {"seconds": time.perf_counter() - start}, asdict(row.config))
    return pool


def _once_a_method(some: Sequence[MethodRow]) -> Iterator[MethodRow]:
    """The first row of each method. Raises UserError when another row of it asks contributors for something else."""
    first: dict[str, MethodRow] = {}
    for row in some:
        known = first.setdefault(row.name, row)
        if known is row:
            yield row


def fit_routers(config: Config, scene: Scene, pool: Pool, run: RunFolder, console: Console) -> None:
    """Fit every row of the table; one that reads a target is fitted once for each held-out task."""
    for row in rows(config):
        method, start = load(row.name), time.perf_counter()
        needs = method.needs(row.config)
        targets: Sequence[str | None] = scene.held_out if needs & TARGET else (None,)
        stage, key = f"routers/{row.label}", _key(row, pool)
        if run.done(stage, key) is not None:
            continue
        try:
            fitted = [_fit(config, scene, pool, run, row, target) for target in targets]
        except NotApplicable as error:
            run.mark(stage, {"not_applicable": str(error)}, key)
            continue
        seconds = time.perf_counter() - start
        run.mark(stage, {"seconds": seconds, "trained": fitted[0].trained if fitted else 0}, key)
        console.print(f"{row.label}: fitted in {seconds:.0f} s", markup=False)


def _key(row: MethodRow, pool: Pool) -> dict[str, Any]:
    experts = {name: info["hash"] for name, info in zip(pool.names, pool.infos, strict=True)}
    return {"config": asdict(row.config), "experts": experts}


def _fit(
    config: Config, scene: Scene, pool: Pool, run: RunFolder, row: MethodRow, target: str | None
) -> Fitted:
    """One router, fitted on what its method may read, written into the run."""
    method = load(row.name)
    needs = method.needs(row.config)
    grants = Grants(
        needs, {name: scene.split(name) for name in scene.held_in}, _target(config, scene, target)
    )
    work = work_of(config, run, "routers", f"{row.label}@{target}" if target else row.label)
    allowed = pool.allow(*method.card.extras)
    fitted = method.fit(row.config, scene.top, allowed, grants, work)
    router_file.save(run.router(row.label, target), method, row.config, scene.base, pool, fitted)
    shutil.rmtree(work.folder, ignore_errors=True)
    return fitted


def _target(config: Config, scene: Scene, name: str | None) -> Target | None:
    if name is None:
        return None
    split = scene.rows[name]
    if "train" not in split:
        raise UserError(
            f"held-out task {name!r} has no training rows to draw {config.evaluation.shots} shots from"
        )
    shots = few(split["train"], config.evaluation.shots, seed_of(f"shots:{name}", config.seed))
    return Target(name, scene.split(name)._replace(train=shots, validation=shots), split["test"])


def truths(scene: Scene) -> dict[str, Truth]:
    """The test rows of all tasks."""
    found = {}
    for name in scene.held_in + scene.held_out:
        rows = scene.rows[name]["test"]
        right = np.asarray(rows.whole.targets)[rows.index]
        found[name] = Truth(name in scene.held_in, right, scene.groups(name))
    return found


def answer(config: Config, scene: Scene, pool: Pool, run: RunFolder, row: MethodRow) -> tuple[Answers, Cost]:
    """The choices of one row of the table for all test rows it applies to, and what a batch of it costs."""
    method = load(row.name)
    needs = method.needs(row.config)
    stage, key = f"answers/{row.label}", _key(row, pool)
    path = run.inside("answers", f"{row.label}.safetensors")
    done = run.done(stage, key)
    if done is None:
        names = scene.held_out if needs & TARGET else scene.held_in
        names = names if needs & TARGET or "test_task" in needs else scene.held_in + scene.held_out
        found, price = {}, None
        for name in names:
            target = name if needs & TARGET else None
            fitted, ordered = router_file.load(
                run.router(row.label, target), method, row.config, scene.base, pool
            )
            arrays = method.arrays(row.config, scene.top, ordered, fitted)
            adapted, test = method.adapt(row.config, scene.top), scene.rows[name]["test"]
            if "test_task" in needs:
                owner = np.full(len(test.whole.tokens), ordered.names.index(name), np.int32)
                test = ArrayRows(test.whole._replace(expert=owner), test.index)
            found[name] = answers(adapted, arrays, test, config.evaluation.batch)
            price = price or _cost(config, scene, pool, adapted, arrays, test)
        assert price is not None
        tree_file.save(path, found)
        run.mark(stage, {"time": price.time, "memory": price.memory}, key)
        done = price._asdict()
    return tree_file.load(path), Cost(done["time"], done["memory"])


def _cost(
    config: Config, scene: Scene, pool: Pool, adapted: Any, arrays: Mapping[str, Any], test: ArrayRows
) -> Cost:
    bare = load("base")
    settings = bare.Config()
    plain = bare.arrays(settings, scene.top, pool, Fitted({"places": {}, "knobs": {}}, pool.names))
    index = np.arange(config.evaluation.batch) % len(test)
    batch = test.take(index)._replace(weight=np.ones(len(index), np.float32))
    batch = jax.tree.map(jnp.asarray, batch)
    return cost(adapted, dict(arrays), bare.adapt(settings, scene.top), plain, batch)


def compare(config: Config, scene: Scene, pool: Pool, run: RunFolder, console: Console) -> dict[str, Any]:
    """Answer every test row by every method, and write results.json."""
    right, every = truths(scene), rows(config)
    given: dict[str, tuple[Answers, Cost]] = {}
    missing: dict[str, str] = {}
    for row in every:
        made = run.done(f"routers/{row.label}", _key(row, pool))
        if made is None:
            raise UserError(f"{run.folder} has no router for {row.label!r} of this pool: run train.py first")
        if "not_applicable" in made:
            missing[row.label] = made["not_applicable"]
            continue
        given[row.label] = answer(config, scene, pool, run, row)
        console.print(f"{row.label}: answered", markup=False)
    uniform = given["uniform"][0] if "uniform" in given else next(iter(given.values()))[0]
    lines = []
    for row in every:
        record: dict[str, Any] = {
            "label": short(row.label, config.methods),
            "row": row.label,
            "needs": sorted(load(row.name).needs(row.config)),
        }
        record["sight"] = sight(frozenset(record["needs"]))
        if row.label in missing:
            lines.append(record | {"not_applicable": missing[row.label]})
            continue
        found, price = given[row.label]
        made = run.done(f"routers/{row.label}", _key(row, pool)) or {}
        spent = _contributed(run, row)
        costs = {"trained": made["trained"], "fit_seconds": made["seconds"] + spent, **price._asdict()}
        numbers = result(found, uniform, right, config.evaluation.samples, config.seed)
        lines.append(record | numbers | {"cost": costs, "options": asdict(row.config)})
    return {
        "title": f"{run.folder.name}, seed {config.seed}",
        "seeds": [config.seed],
        "groups": sorted({group for truth in right.values() for group in np.unique(truth.group).tolist()}),
        "rows": lines,
        "tuned_on": {
            "the configuration's settings": "validation rows, seed 0",
            "task_arithmetic lambda": "validation",
        },
        "config": plain(config),
        "keys": read_json(run.folder / "config.json")["keys"],
        **provenance(),
    }


def _contributed(run: RunFolder, row: MethodRow) -> float:
    done = run.done(f"contribute/{row.name}", asdict(row.config))
    return done["seconds"] if done else 0.0
