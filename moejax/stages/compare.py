"""The stages of eval.py: every method answers the test rows, and the results of all are put side by side."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from moejax.adapted import Adapted
from moejax.config import Config, plain, rows
from moejax.contract import Fitted, Pair
from moejax.evaluate import router_file
from moejax.evaluate.asked import Asked, owned
from moejax.evaluate.compare import Answers, Found, Truth, measured, result, sight
from moejax.evaluate.pairs import curves, look_up
from moejax.evaluate.program import Cost, answers, cost
from moejax.evaluate.results import provenance
from moejax.evaluate.told import told
from moejax.experts.pool import Pool
from moejax.method_row import MethodRow, short
from moejax.methods import load
from moejax.paged import for_batch, paged
from moejax.parallel import hosts
from moejax.stages.make import TARGET, key_of, pool_for
from moejax.stages.make import asked as asked_for
from moejax.stages.scene import Scene, joined
from moejax.stages.works import work_of
from moejax.train import tree_file
from moejax.train.outcomes import members, outcomes
from moejax.train.rows import ArrayRows
from moejax.train.run_folder import RunFolder, read_json
from moejax.types import PyTree, UserError


class Applied(NamedTuple):
    """A row of the table as it is used on one task: its program, its arrays, the names of its experts, test rows.

    asked: of a decoder, the test rows as it is asked.
    """

    task: str
    adapted: Adapted
    arrays: PyTree
    experts: tuple[str, ...]
    test: ArrayRows
    asked: Asked | None = None


def used_on(scene: Scene, row: MethodRow) -> tuple[str, ...]:
    """The tasks that a row of the table applies to."""
    needs = load(row.name).needs(row.config)
    if needs & TARGET:
        return scene.held_out
    return tuple(scene.experts_of()) if "test_task" in needs else scene.held_in + scene.held_out


def applied(config: Config, scene: Scene, pool: Pool, run: RunFolder, row: MethodRow) -> Iterator[Applied]:
    """A row of the table on each task that it applies to, by the router that was fitted for it."""
    method, pool = load(row.name), pool_for(row, pool)
    needs = method.needs(row.config)
    known: dict[str | None, tuple[Adapted, Any, tuple[str, ...]]] = {}
    for name in used_on(scene, row):
        target = name if needs & TARGET else None
        if target not in known:
            fitted, ordered = router_file.load(
                run.router(row.label, target), method, row.config, scene.base, pool
            )
            arrays = method.arrays(row.config, scene.top, ordered, fitted)
            known = {target: (*paged(method.adapt(row.config, scene.top), arrays, ordered), ordered.names)}
        (adapted, arrays, experts), test = known[target], scene.rows[name]["test"]
        asked = scene.asked.get(name)
        if "test_task" in needs:
            number = experts.index(scene.experts_of()[name])
            test, asked = owned(test, number), asked and asked.of_expert(number)
        yield Applied(name, adapted, arrays, experts, test, asked)


def truths(scene: Scene) -> dict[str, Truth]:
    """The test rows of all tasks."""
    found = {}
    for name in scene.held_in + scene.held_out:
        task = scene.tasks[name]
        choosing = task.kind == "classification"
        right = np.array([task.answer(row) if choosing else -1 for row in task.rows["test"]])
        found[name] = Truth(name in scene.held_in, right, scene.groups(name))
    return found


class Answered(NamedTuple):
    """The answers of a row of the table, what a batch of it costs, and what its choice between two members is worth."""

    found: Answers
    cost: Cost
    curves: dict[str, Any] | None = None


def answer(config: Config, scene: Scene, pool: Pool, run: RunFolder, row: MethodRow) -> Answered:
    """The answers of one row of the table for all test rows it applies to, and what a batch of it costs.

    A choice between two members is looked up in the matrix of what all members chose; a decoder is asked anew.
    """
    stage, key = f"answers/{row.label}", key_of(row, pool)
    path = run.inside("answers", f"{row.label}.safetensors")
    done = run.done(stage, key)
    if done is None:
        looked, known, price = {}, {}, None
        found: dict[str, Found] = {}
        how = config.evaluation
        for task, adapted, arrays, names, test, asked in applied(config, scene, pool, run, row):
            if asked is not None:
                tokenizer = scene.base.tokenizer
                found[task] = told(adapted, arrays, asked, tokenizer, how.batch, how.max_new, how.stop)
            elif isinstance(adapted.route, Pair):
                known = known or _alone(config, scene, pool_for(row, pool), run)
                looked[task] = look_up(adapted.route, arrays, test, how.batch, names, known[task])
                found[task] = {"choice": looked[task].answers}
            else:
                found[task] = {"choice": answers(adapted, arrays, test, how.batch)}
            price = price or _cost(config, scene, pool, adapted, arrays, test)
        assert price is not None
        hosts.write(lambda: tree_file.save(path, found))
        done = {**price._asdict(), "curves": curves(looked, truths(scene)) if looked else None}
        run.mark(stage, done, key)
    return Answered(tree_file.load(path), Cost(done["time"], done["memory"]), done.get("curves"))


def _alone(config: Config, scene: Scene, pool: Pool, run: RunFolder) -> dict[str, dict[str, np.ndarray]]:
    """Task -> member -> its choices for the test rows, from the outcomes matrix of all of them."""
    tasks, work = scene.held_in + scene.held_out, work_of(config, run, "outcomes")
    rows = joined(scene.rows, tasks, "test")
    columns = outcomes(scene.top, pool, rows, config.evaluation.batch, work).choice.T
    ends = np.cumsum([len(scene.rows[task]["test"]) for task in tasks])[:-1]
    parts = [np.split(column, ends) for column in columns]
    return {
        task: {name: parts[m][i] for m, name in enumerate(members(scene.top, pool))}
        for i, task in enumerate(tasks)
    }


def _cost(config: Config, scene: Scene, pool: Pool, adapted: Any, arrays: PyTree, test: ArrayRows) -> Cost:
    bare = load("base")
    settings = bare.Config()
    plain = bare.arrays(settings, scene.top, pool, Fitted({"places": {}, "knobs": {}}, pool.names))
    index = np.arange(config.evaluation.batch) % len(test)
    batch = test.take(index)._replace(weight=np.ones(len(index), np.float32))
    batch = jax.tree.map(jnp.asarray, batch)
    return cost(adapted, for_batch(arrays, batch), bare.adapt(settings, scene.top), plain, batch)


def compare(config: Config, scene: Scene, pool: Pool, run: RunFolder, console: Console) -> dict[str, Any]:
    """Answer every test row by every method: what results.json holds."""
    right, every = truths(scene), rows(config)
    given: dict[str, Answered] = {}
    missing: dict[str, str] = {}
    for row in every:
        made = run.done(f"routers/{row.label}", key_of(row, pool))
        if made is None:
            raise UserError(f"{run.folder} has no router for {row.label!r} of this pool: run train.py first")
        if "not_applicable" in made:
            missing[row.label] = made["not_applicable"]
            continue
        given[row.label] = answer(config, scene, pool, run, row)
        console.print(f"{row.label}: answered", markup=False)
    uniform = given["uniform"].found if "uniform" in given else None
    lines = []
    for row in every:
        record = _told(config, row)
        if row.label in missing:
            lines.append(record | {"not_applicable": missing[row.label]})
            continue
        found, price, choice = given[row.label]
        made = run.done(f"routers/{row.label}", key_of(row, pool)) or {}
        spent = _contributed(run, row)
        costs = {"trained": made["trained"], "fit_seconds": made["seconds"] + spent, **price._asdict()}
        numbers = result(found, uniform, right, config.evaluation.samples, config.seed)
        lines.append(
            record
            | numbers
            | {"cost": costs, "options": asdict(row.config), "chosen": made["chosen"]}
            | ({} if choice is None else {"curves": choice})
        )
    return {
        "title": f"{named(run.folder, config.seed)}, seed {config.seed}",
        "measure": measured({scene.tasks[name].kind for name in right}),
        "seeds": [config.seed],
        "groups": sorted({group for truth in right.values() for group in np.unique(truth.group).tolist()}),
        "tasks": {"held_in": list(scene.held_in), "held_out": list(scene.held_out)},
        "rows": lines,
        "settled_on": config.settled_on or "not said by the configuration",
        "config": plain(config),
        "keys": read_json(run.folder / "config.json")["keys"],
        **provenance(),
    }


def named(folder: Path, seed: int) -> str:
    """The name of a run: of its folder, of the folder above where that is one of several seeds."""
    return folder.parent.name if folder.name == f"seed-{seed}" else folder.name


def _told(config: Config, row: MethodRow) -> dict[str, Any]:
    """What a row of the table is called, and what its method may see."""
    method = load(row.name)
    needs = method.needs(row.config)
    return {
        "label": short(row.label, config.methods),
        "row": row.label,
        "needs": sorted(needs),
        "extras": sorted(method.extras(row.config)),
        "sight": sight(needs),
    }


def _contributed(run: RunFolder, row: MethodRow) -> float:
    done = run.done(f"contribute/{row.name}", asked_for(row))
    return done["seconds"] if done else 0.0
