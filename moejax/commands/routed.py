"""A base, its experts and a method, as a command line names them, made ready to answer."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from moejax import paged
from moejax.adapted import Adapted
from moejax.commands.expert_sources import few_in_memory, named, roomy
from moejax.commands.run_parts import config_of, experts_of, settings_of
from moejax.contract import Fitted
from moejax.evaluate import router_file
from moejax.evaluate.grants import Grants
from moejax.experts.folder import expert_folders
from moejax.experts.pool import Pool
from moejax.experts.read import own_name
from moejax.method_row import MethodRow, parse_row
from moejax.methods import load
from moejax.models import minilm, weights
from moejax.models.base import Base
from moejax.parallel.rules import of_base
from moejax.types import NotApplicable, PyTree, UserError

ORACLES = frozenset({"test_task", "test_inputs", "test_labels"})


@dataclass(frozen=True)
class Routed:
    """What answers: a base, experts and a method, or a router that was fitted in a run."""

    base: str = ""
    """The base model: a folder as Hugging Face lays it out, or a name on its hub."""
    experts: str = ""
    """A folder of experts, one expert's folder, or a name on the hub; several with commas between. None: the base."""
    method: str = ""
    """A method that needs no data, as `uniform` or `arrow(k=2)`; arrow unless given, `base` without experts."""
    router: str = ""
    """A fitted router instead, as runs/NAME/routers/METHOD; base and experts are then its run's unless given."""
    embedder: str = ""
    """The encoder of sentence vectors, for methods that compare them: a folder, a name on the hub, or `minilm`."""
    capacity: int = 0
    """Expert slots of the bank; 0: 4, 8, 16, … whichever holds the experts, so that one more compiles nothing."""
    pool_slots: int = 0
    """Experts that are in memory at once, the others stay on disk, for methods that choose a few; 0: all."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Numbers in which the base computes."""
    allow_base_mismatch: bool = False
    """Take experts although they say that they were trained on another base."""


class Ready(NamedTuple):
    """What answers, in memory; `warnings` are sentences on the experts as they were read."""

    base: Base
    pool: Pool
    adapted: Adapted
    arrays: PyTree
    label: str
    query: bool
    warnings: tuple[str, ...]


def ready(options: Routed) -> Ready:
    """Read base and experts, and make the method of them.

    Raises UserError for what cannot be read, and for a method that has to be fitted on data first.
    """
    run, record, row = _asked(options)
    base = _base(options, run)
    some = named(options.experts) if options.experts else _of_run(run)
    if not some and row.name != "base":
        raise UserError(f"{row.label} routes experts: say --experts FOLDER")
    base = _embedding(base, row, options.embedder or str(run.get("embedder", "")))
    allow = options.allow_base_mismatch or bool(run.get("base", {}).get("allow_mismatch"))
    capacity = options.capacity or (max(record["capacity"], len(some)) if record else 0)
    method = load(row.name)
    if options.pool_slots < 0:
        raise UserError(f"--pool-slots is {options.pool_slots}: expected 1 or more, or 0 for all experts")
    if options.pool_slots:
        paged.check(row.label, method)
        pool, warnings = few_in_memory(some, base, allow, capacity, options.pool_slots)
    else:
        pool, warnings = roomy(some, base, allow, capacity, ranks=record is None)
    kind = method.kind(row.config)
    if kind and kind not in pool.kinds:
        raise NotApplicable(
            f"{row.label} routes experts of kind {kind}, these are {', '.join(sorted(pool.kinds))}"
        )
    if record is None:
        fitted = _without_data(row, base, pool)
    else:
        fitted, pool = router_file.load(Path(options.router), method, row.config, base, pool)
    arrays = method.arrays(row.config, base, pool, fitted)
    adapted, arrays = paged.paged(method.adapt(row.config, base), arrays, pool)
    return Ready(base, pool, adapted, arrays, row.label, method.query, warnings)


def _asked(options: Routed) -> tuple[Mapping[str, Any], dict[str, Any] | None, MethodRow]:
    """The configuration of the router's run, the router's record (None: no router), and the row of the method."""
    if not options.router:
        row = parse_row(options.method or ("arrow" if options.experts else "base"))
        _no_oracle(row.label, load(row.name).needs(row.config))
        return {}, None, row
    if options.method:
        raise UserError(f"--router {options.router} says which method: leave --method out")
    folder = Path(options.router)
    record = router_file.read_record(folder)
    method = load(record["method"])
    row = MethodRow(folder.name, record["method"], settings_of(method, record["config"]))
    _no_oracle(row.label, method.needs(row.config) & {"test_task"})
    root = folder.resolve().parent.parent
    run = config_of(root) or {}
    return {**run, "root": root} if run else {}, record, row


def _no_oracle(label: str, needs: frozenset[str]) -> None:
    if needs & ORACLES:
        raise UserError(
            f"{label} is told what is right: it can be compared in a run, but answers no new prompt"
        )


def _base(options: Routed, run: Mapping[str, Any]) -> Base:
    """The base, with the model beside it where the router's run had one."""
    settings = run.get("base", {})
    source = options.base or settings.get("source")
    if not source:
        raise UserError("which base? Say --base FOLDER, a decoder as Hugging Face lays it out")

    def read_base(name: str) -> Base:
        return weights.load(minilm.installed() if name == "minilm" else name, options.dtype, of_base)

    base = read_base(str(source))
    if not settings.get("beside"):
        return base
    return replace(base, beside=read_base(str(settings["beside"])))


def _embedding(base: Base, row: MethodRow, source: str) -> Base:
    """The base with the encoder of sentence vectors, where the method looks at them."""
    if not load(row.name).query:
        return base
    if not source:
        raise UserError(f"{row.label} compares sentence vectors: say --embedder FOLDER, or --embedder minilm")
    from moejax.embed.embedder import Embedder

    encoder = weights.load(minilm.installed() if source == "minilm" else source)
    return replace(base, embedder=Embedder(encoder))


def _of_run(run: Mapping[str, Any]) -> list[tuple[str, Path]]:
    """Name and folder of the experts of a router's run."""
    return (
        [
            (own_name(one), one)
            for folder in experts_of(run["root"], dict(run))[:1]
            for one in expert_folders(folder)
        ]
        if run
        else []
    )


def _without_data(row: MethodRow, base: Base, pool: Pool) -> Fitted:
    """The router of a method that reads the experts alone."""
    method = load(row.name)
    if needs := method.needs(row.config) - {"own"}:  # what contributors saw stands in the experts' extras
        raise UserError(
            f"{row.label} is fitted on data ({', '.join(sorted(needs))}): fit it in a run with train.py, "
            f"then say --router RUN/routers/{row.name}"
        )
    return method.fit(row.config, base, pool.allow(*method.extras(row.config)), Grants(frozenset(), {}), None)
