"""The last stage of eval.py: what each router does on a few dozen rows, and the report that shows the whole run."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from moejax.config import Config, rows
from moejax.evaluate import routing
from moejax.experts.pool import Pool
from moejax.fetch import fetch
from moejax.method_row import MethodRow
from moejax.paged import for_batch
from moejax.parallel import hosts
from moejax.report.page import page
from moejax.stages.compare import applied, used_on
from moejax.stages.make import key_of
from moejax.stages.scene import Scene
from moejax.train.rows import ArrayRows
from moejax.train.run_folder import RunFolder, as_json, read_json, write_json
from moejax.types import Batch, UserError

ROWS, TEXTS = 64, 6  # looked at in all, and of these shown token by token


class Parts(NamedTuple):
    """What the report shows beside results.json: records of metrics.jsonl, and of each row's routing by its text."""

    metrics: list[dict[str, Any]]
    routing: dict[str, dict[str, Any]]


def gather(config: Config, scene: Scene, pool: Pool, run: RunFolder) -> Parts:
    """Look at every router that was fitted (once: `routing/ROW.json` keeps it), and read the metrics."""
    found = {}
    for row in rows(config):
        stage, key = f"routing/{row.label}", key_of(row, pool)
        path = run.inside("routing", f"{row.label}.json")
        made = run.done(f"routers/{row.label}", key)
        if made is None or "not_applicable" in made:
            continue
        if run.done(stage, key) is None:
            hosts.write(partial(write_json, path, _record(config, scene, pool, run, row)))
            run.mark(stage, key=key)
        found[row.label] = read_json(path)
    return Parts(read_metrics(run.folder / "metrics.jsonl"), found)


def _record(config: Config, scene: Scene, pool: Pool, run: RunFolder, row: MethodRow) -> dict[str, Any]:
    """How one row of the table routes a few test rows of each task that it applies to."""
    names = used_on(scene, row)
    if not names:
        return {"none": "no task here is of the kind that it is for"}
    looked, shown, each = spread(names, ROWS), spread(names, TEXTS), max(1, ROWS // len(names))
    if config.pool_slots is not None:
        each = min(each, config.evaluation.batch)
    seen: dict[str, routing.Seen] = {}
    batches: dict[str, Batch] = {}
    experts: dict[int, str] = {}
    for task, adapted, arrays, known, test, _ in applied(config, scene, pool, run, row):
        if task not in looked:
            continue
        batch = some_rows(test, each)
        try:
            given = for_batch(arrays, batch)
        except UserError as error:  # rows from all over a task may choose more than a batch of neighbours
            return {"none": str(error)}
        found = routing.look(given, jax.tree.map(jnp.asarray, batch), adapted=adapted)
        if not found.sites:
            return {"none": "its forward uses no expert, so nothing is routed"}
        experts = routing.named(arrays["bank"], known)
        if len(experts) < 2:
            return {"none": "one adapter serves every request, so nothing is routed"}
        found = routing.over_all(found, arrays)
        batches[task], seen[task] = batch, found
    seen, texts = dict(zip(seen, fetch(list(seen.values())), strict=True)), []  # in the order of the tasks
    for task in (task for task in seen if task in shown and seen[task].each.ndim == 3):
        batch, first = batches[task], scene.tasks[task].rows["test"][0]
        weights: Any = seen[task].each[0][:, list(experts)]
        real = batch.mask[0]
        said = words(scene.base.tokenizer, batch.tokens[0][real].tolist())
        texts.append({"task": task, "answer": first.target, **routing.tokens(weights[real], said)})
    found = routing.summary(seen, batches, experts, scene.base.layers)
    return {**found, "own": scene.experts_of(), "texts": texts}


def spread(names: Sequence[str], count: int) -> tuple[str, ...]:
    """At most so many of them, evenly spaced."""
    if len(names) <= count:
        return tuple(names)
    return tuple(names[int(i)] for i in np.linspace(0, len(names) - 1, count).round())


def some_rows(test: ArrayRows, count: int) -> Batch:
    """So many of the rows, evenly spaced, from the first on; what is missing is the first again with weight 0."""
    real = min(count, len(test))
    index = np.zeros(count, int)
    index[:real] = np.arange(real) * len(test) // real
    return test.take(index)._replace(weight=(np.arange(count) < real).astype(np.float32))


def words(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """Tokens as they are read: a space before each that begins a word, none before one that goes on with it.

    A line break, which decoders are given, is shown as an arrow.
    """
    tokens = [
        token.replace("\n", "↵").replace("Ċ", "↵") for token in tokenizer.convert_ids_to_tokens(list(ids))
    ]
    if any(
        token.startswith(("▁", "Ġ")) for token in tokens
    ):  # these mark the beginning, word pieces mark what goes on
        return [token.replace("▁", " ").replace("Ġ", " ") for token in tokens]
    return [token[2:] if token.startswith("##") else f" {token}" for token in tokens]


def write(folder: Path, results: Mapping[str, Any], parts: Parts, command: str = "", note: str = "") -> Path:
    """Write report.html beside results.json, whole or not at all."""
    path = folder / "report.html"
    hosts.write(lambda: _write(path, results, parts, command, note))
    return path


def _write(path: Path, results: Mapping[str, Any], parts: Parts, command: str, note: str) -> None:
    made = {"command": command, "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), "note": note}
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_text(page(as_json(results), parts.metrics, parts.routing, made), encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl; a line that is no record is left out."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        found += [record] if isinstance(record, dict) else []
    return found
