"""Part 4: e experts trained in one program, against e runs of one each, and against peft on torch for one.

A run is a process of its own, since each pays its own compilation. `cold` has no compiled program at hand, `warm` finds
those of an earlier run in a cache on disk. Seconds are of `train_together` with all that it does; what a process needs
to start (imports, base, rows) is told apart. Runs of one are equal in size: some are made, their median is every one's.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from moejax.models.base import Base
from moejax.models.encoder import EncoderConfig
from moejax.models.weights import load, random_base
from moejax.train.experts import Recipe, train_together
from moejax.train.optimiser import Optimiser
from moejax.train.rows import ArrayRows
from moejax.train.work import Work
from moejax.types import Batch

EXPERTS, ALONE = 16, 3  # trained together; runs of one that are really made
TINY = EncoderConfig(vocab=64, width=32, layers=2, heads=4, hidden=64, positions=32, remat=False)
STATES = ("cold", "warm")


class Lesson(NamedTuple):
    """A base with label vectors, the rows of each expert, and how it is trained."""

    base: Base
    rows: dict[str, ArrayRows]
    recipe: Recipe


def tiny() -> Lesson:
    """Random rows on a random encoder of width 32."""
    rng, base = np.random.default_rng(0), random_base(TINY)
    labels = rng.normal(size=(8, TINY.width)).astype(np.float32)
    labels /= np.linalg.norm(labels, axis=1, keepdims=True)
    tokens = rng.integers(1, TINY.vocab, (EXPERTS * 32, 16)).astype(np.int32)
    mask, targets = np.ones(tokens.shape, bool), rng.integers(0, 4, len(tokens)).astype(np.int32)
    choices = np.tile(np.arange(4, dtype=np.int32), (len(tokens), 1))
    whole = Batch(tokens, mask, mask, pool=mask, targets=targets, choices=choices)
    rows = {f"e{i:02}": ArrayRows(whole, np.arange(32 * i, 32 * (i + 1))) for i in range(EXPERTS)}
    recipe = Recipe(rank=4, alpha=8.0, batch=8, optimiser=Optimiser(5e-3, 15))
    return Lesson(replace(base, labels=jnp.asarray(labels)), rows, recipe)


def minilm() -> Lesson:
    """MiniLM-L6 and the tasks of the generated suite: ten skills and six pairs."""
    from moejax.data.batch import collate, widest
    from moejax.data.encode import encode
    from moejax.data.generated import SuiteConfig, generate
    from moejax.data.tasks import labels
    from moejax.evaluate.labels import label_vectors
    from moejax.models.minilm import installed
    from moejax.train.rows import stack

    read = load(installed())
    base = replace(read, model=type(read.model)(replace(read.model.config, remat=False)))  # pyright: ignore[reportAttributeAccessIssue]
    suite = generate(SuiteConfig(train=64, pair_train=64, validation=1, test=1, clauses=(3, 4)))
    tasks = (suite.held_in + suite.held_out)[:EXPERTS]
    phrases = labels(tasks)
    parts = [encode(task, task.rows["train"], base.tokenizer, 40, "encoder", phrases) for task in tasks]
    width, options = widest(parts)
    whole = stack([collate(part, width=width, options=options) for part in parts])
    ends = np.cumsum([0, *(len(part.lines) for part in parts)])
    rows = {task.name: ArrayRows(whole, np.arange(ends[i], ends[i + 1])) for i, task in enumerate(tasks)}
    base = replace(base, labels=label_vectors(base, phrases))
    return Lesson(base, rows, Recipe(rank=8, batch=8, optimiser=Optimiser(5e-3, 15)))


LESSONS = {"tiny": tiny, "minilm": minilm}


def ours(lesson: Lesson, names: Sequence[str]) -> None:
    """Experts of these names in one program."""
    with tempfile.TemporaryDirectory() as folder:
        some = {name: lesson.rows[name] for name in names}
        train_together(lesson.base, some, lesson.recipe, Work(Path(folder)))


def theirs(lesson: Lesson, names: Sequence[str]) -> None:
    """One expert by peft on torch."""
    from benchmarks import peers_training

    (name,) = names
    peers_training.train(lesson, name)


def _work(given: dict[str, Any]) -> dict[str, float]:
    """What a child does."""
    begun = time.perf_counter()
    lesson = LESSONS[given["lesson"]]()
    if "steps" in given:
        recipe = lesson.recipe
        optimiser = replace(recipe.optimiser, steps=given["steps"])
        lesson = lesson._replace(recipe=replace(recipe, optimiser=optimiser))
    names = sorted(lesson.rows)[given["first"] : given["first"] + given["count"]]
    wall, cpu = time.perf_counter(), time.process_time()
    (theirs if given["peer"] else ours)(lesson, names)
    found = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    return found | {"setup": wall - begun}


def run(given: dict[str, Any], cache: str | None) -> dict[str, float]:
    """A process of its own; cache: a folder of compiled programs, None: no such folder."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION_CACHE")}
    if cache is not None:
        env |= {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command = [sys.executable, "-m", "benchmarks.training", json.dumps(given)]
    begun = time.perf_counter()
    found = subprocess.run(
        command, cwd=Path(__file__).parents[1], env=env, capture_output=True, text=True, check=False
    )
    if found.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{found.stderr}")
    whole = time.perf_counter() - begun
    return json.loads(found.stdout.splitlines()[-1]) | {"process": whole}


def part(
    peers: bool = True, lessons: Sequence[str] = tuple(LESSONS), alone: int = ALONE, **options: Any
) -> Iterator[dict[str, Any]]:
    """Each lesson: together and alone in turn, cold and then warm, and one expert by peft."""
    for name in lessons:
        given = {"lesson": name, "peer": False, "first": 0, "count": 1} | options
        kinds = [("together", given | {"count": EXPERTS})]
        kinds += [("alone", given | {"first": first}) for first in range(alone)]
        made: dict[str, dict[str, list[dict[str, float]]]] = {state: {} for state in STATES}
        for kind, one in kinds:
            with tempfile.TemporaryDirectory() as cache:
                for state in STATES:
                    made[state].setdefault(kind, []).append(run(one, cache))
        if peers:
            made["cold"]["peft"] = [run(given | {"peer": True}, None)]
        yield {"title": f"training {EXPERTS} experts, {name}", "lesson": name, **_told(made)}


def _told(made: dict[str, dict[str, list[dict[str, float]]]]) -> dict[str, Any]:
    """Ratios of one program to all runs: `train_together` alone, and whole processes."""
    found: dict[str, Any] = {"runs": made, "ratio": {}, "processes": {}}
    for state in STATES:
        (one,), apart = made[state]["together"], made[state]["alone"]
        share = lambda clock, one=one, apart=apart: one[clock] / (EXPERTS * median(r[clock] for r in apart))  # noqa: E731
        found["ratio"][state] = {clock: share(clock) for clock in ("wall", "cpu")}
        found["processes"][state] = share("process")
    if peft := made["cold"].get("peft"):
        theirs = {clock: median(r[clock] for r in peft) for clock in ("wall", "cpu")}
        for state in STATES:
            mine = {c: median(r[c] for r in made[state]["alone"]) / theirs[c] for c in theirs}
            shared = {c: made[state]["together"][0][c] / EXPERTS / theirs[c] for c in theirs}
            found.setdefault("over_peft", {})[state] = {"one alone": mine, "one of all": shared}
    return found


if __name__ == "__main__":
    print(json.dumps(_work(json.loads(sys.argv[1]))))
