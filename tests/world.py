"""A tiny world in which any method can be fitted: a base, a pool, data for every grant, and one program.

Everything here has one shape for each base, so that a method is compiled once for all tests: pools have the
same capacity whatever they hold, batches are padded to one width, and fits draw the same number of rows.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tiny

from moejax.adapted import Adapted, score
from moejax.contract import Fitted, Method, Split
from moejax.evaluate.grants import Grants, Target
from moejax.experts import bank as banks
from moejax.experts import stacks
from moejax.experts.expert import Expert
from moejax.experts.pool import Pool
from moejax.methods import TABLE, load
from moejax.models.base import Base
from moejax.routing import select
from moejax.site import sown
from moejax.train.work import Work
from moejax.types import Batch

NAMES, CAPACITY, ROWS = ("ann", "bob", "cy"), 5, 12
LINES: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in TABLE} | {
    "arrow(factor)": ("arrow", {"aggregation": "factor"}),
    "uniform(factor)": ("uniform", {"aggregation": "factor"}),
    "best_single(test)": ("best_single", {"rows": "test"}),
    "granularity(task)": ("granularity", {"grain": "task", "choose": "topk"}),
    "granularity(example)": ("granularity", {"grain": "example", "mix": "factor"}),
    "granularity(top1)": ("granularity", {"choose": "top1"}),
    "loraretriever(fusion)": ("loraretriever", {"mode": "fusion", "encoder": "shelf"}),
    "loraretriever(centroids)": ("loraretriever", {"encoder": "centroids", "mode": "selection"}),
    "lorahub(output)": ("lorahub", {"merge": "output"}),
    "meteora(train_loras)": ("meteora", {"train_loras": True}),
    "we_moe(depth=0)": ("we_moe", {"depth": 0}),
    "mole(token)": ("mole", {"mode": "token"}),
    "mole(layer)": ("mole", {"level": "layer"}),
    "mole(matrix)": ("mole", {"level": "matrix"}),
    "adapterfusion(lora)": ("adapterfusion", {"form": "lora"}),
    "adapterfusion(static)": ("adapterfusion", {"form": "lora", "values": "static"}),
    "adapterfusion(all)": ("adapterfusion", {"form": "lora", "at": "all"}),
    "routellm(sw)": ("routellm", {"predictor": "sw"}),
    "routellm(bert)": ("routellm", {"predictor": "bert"}),
    "routellm(target)": ("routellm", {"sample": "target", "gold": True, "battles": "pair"}),
    "own_expert(bottleneck)": ("own_expert", {"kind": "bottleneck"}),
    "best_single(bottleneck)": ("best_single", {"kind": "bottleneck"}),
    "we_moe(delta)": ("we_moe", {"kind": "delta"}),
    "own_expert(delta)": ("own_expert", {"kind": "delta"}),
    "task_arithmetic(delta)": ("task_arithmetic", {"kind": "delta", "grid": (0.2, 0.4)}),
}
"""What the contract is tested on: every method, and those that have modes in each."""

QUICK: dict[str, dict[str, Any]] = {  # settings that make a fit take a moment
    "arrow": {"k": 2},
    "phatgoose": {"steps": 2},
    "average_activation": {"rows": 1},
    "granularity": {"rows": 1},
    "token_gate": {"steps": 2, "batch": ROWS, "rate": 0.3},
    "task_arithmetic": {"rows": 6, "batch": 6, "grid": (0.2, 1.0)},
    "best_single": {"batch": 6},
    "lorahub": {"budget": 6, "search": "random"},
    "loraretriever": {"k": 2, "samples": 3, "steps": 2},
    "meteora": {"steps": 2, "batch": ROWS, "rate": 0.1},
    "calm": {"steps": 2, "batch": 6, "rate": 0.1},
    "mole": {"steps": 2, "batch": 6, "rate": 0.1},
    "we_moe": {"steps": 2, "batch": 6, "rate": 0.1},
    "routellm": {"share": 0.8, "width": 8, "epochs": 2, "steps": 2, "batch": 6, "rate": 0.05},
    "multitask": {"rank": 2, "steps": 2, "batch": ROWS, "rate": 1e-2},
    "adapterfusion": {"steps": 2, "batch": 6, "rate": 0.01},
}


class World(NamedTuple):
    """What a fit is given, for one base."""

    base: Base
    pool: Pool
    data: dict[str, Split]
    target: Target
    public: Split


class Fit(NamedTuple):
    """A method fitted in a world."""

    method: Method
    config: Any
    adapted: Adapted
    arrays: dict[str, Any]
    router: Fitted
    pool: Pool


def make(kind: str, *names: str, line: str = "base") -> World:
    """A world over a random encoder or decoder, with experts of the kind that a line routes."""
    base = tiny.base(kind)
    data = {name: split(base, i) for i, name in enumerate(NAMES)}
    target = Target("new", split(base, 20), tiny.rows(base, 6, seed=22))
    pool = {"bottleneck": tiny.bottlenecks, "delta": tiny.deltas}.get(routes(line), tiny.pool)
    return World(base, pool(base, *(names or NAMES), capacity=CAPACITY), data, target, split(base, 30))


def routes(line: str) -> str:
    """The kind of experts that a line routes; empty: any."""
    return load(LINES[line][0]).kind(config(line))


def newcomer(world: World, line: str, name: str) -> Expert:
    """One more expert of the kind that a line routes."""
    return {"bottleneck": tiny.bottleneck, "delta": tiny.delta}.get(routes(line), tiny.expert)(
        world.base, name
    )


def split(base: Base, seed: int) -> Split:
    """Rows to train on and to validate on."""
    return Split(tiny.rows(base, 9, seed=seed), tiny.rows(base, 6, seed=100 + seed))


def config(line: str, experts: int = len(NAMES)) -> Any:
    """The configuration of a line, with quick settings; each contributor's share of a batch of `ROWS`."""
    name, options = LINES[line]
    method = load(name)
    share = {"batch": ROWS // experts} if "batch" in method.contributed else {}
    return method.Config(**QUICK.get(name, {}) | share | options)


def grants(world: World, needs: frozenset[str]) -> Grants:
    """What a method with these needs is given."""
    return Grants(needs, world.data, world.target, world.public)


def contributed(world: World, line: str, folder: Path) -> Pool:
    """The pool with what contributors hand over for this method, and nothing else open."""
    method, given = load(LINES[line][0]), world.pool
    if method.contribute:
        rows = {name: world.data[name].train for name in given.names}
        settings = config(line, len(given.names))
        given = given.with_extras(method.contribute(settings, world.base, given, rows, Work(folder / "own")))
    return given.allow(*method.extras(config(line)))


def fit(
    world: World, line: str, seed: int = 0, given: Pool | None = None, allowed: Grants | None = None
) -> Fit:
    """A line fitted in this world."""
    method, settings = load(LINES[line][0]), config(line)
    with tempfile.TemporaryDirectory() as folder:
        given = given or contributed(world, line, Path(folder))
        allowed = allowed or grants(world, method.needs(settings))
        router = method.fit(settings, world.base, given, allowed, Work(Path(folder, "fit"), seed))
    arrays = method.arrays(settings, world.base, given, router)
    return Fit(method, settings, method.adapt(settings, world.base), arrays, router, given)


def standard(kind: str, line: str = "base") -> World:
    """The world that most tests share: of each kind of experts one."""
    of = {"bottleneck": "adapterfusion", "delta": "own_expert(delta)"}
    return _standard(kind, of.get(routes(line), "base"))


_standard = cache(lambda kind, line: make(kind, line=line))


@cache
def fitted(kind: str, line: str) -> Fit:
    """A line fitted in it."""
    return fit(standard(kind, line), line)


def batch(world: World, count: int = 4, seed: int = 5) -> Batch:
    """A batch of requests on the device; their own experts are known (only oracles read them)."""
    some = tiny.as_batch(tiny.rows(world.base, count, seed=seed))
    some = some._replace(expert=np.arange(count, dtype=np.int32) % len(world.pool.names))
    return jax.tree.map(jnp.asarray, some)


def _look(arrays, batch, adapted):
    scores, records = score(adapted, arrays, batch, record=True)
    experts = banks.size(arrays["bank"])
    return scores, {path: select.dense(w, experts) for path, w in sown(records, "weights").items()}


program = jax.jit(_look, static_argnames="adapted")
"""Scores and weights: the one program for each (adapted, shapes) that all tests share."""


def look(fit: Fit, batch: Batch, arrays: Any = None) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The scores, and all weights spelled out over the experts: path -> [l, …, e]."""
    return jax.device_get(program(fit.arrays if arrays is None else arrays, batch, fit.adapted))


def scores(fit: Fit, batch: Batch, arrays: Any = None) -> np.ndarray:
    """The scores alone."""
    return look(fit, batch, arrays)[0]


def silent(pool: Pool) -> Pool:
    """The pool with every B zero, or every difference, and every bias behind it."""
    quiet = ("b", "b_bias", "w", "bias")
    sites = {
        path: s._replace(**{name: getattr(s, name) * 0 for name in quiet if name in stacks.leaves(s)})
        for path, s in pool.bank.sites.items()
    }
    return replace(pool, bank=pool.bank._replace(sites=sites))


def with_alive(fit: Fit, base: Base, alive: Any) -> dict[str, Any]:
    """The arrays where these experts alone are alive; what was merged into the parameters is merged anew."""
    if "delta" not in fit.pool.kinds:
        return fit.arrays | {"bank": fit.arrays["bank"]._replace(alive=alive)}
    pool = replace(fit.pool, bank=fit.pool.bank._replace(alive=alive))
    return fit.method.arrays(fit.config, base, pool, fit.router)


@contextmanager
def compiles() -> Iterator[list[str]]:
    """Names of what is compiled within: nothing, where values alone have changed."""
    found: list[str] = []

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            found.append(str(kwargs.get("fun_name", event)))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def nowhere() -> Work:
    """Work of a fit that must not come to the end."""
    return Work(Path(tempfile.mkdtemp(), "nowhere"))
