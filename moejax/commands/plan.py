"""`python -m moejax plan`: what a run takes on devices, here or not, before anything is allocated."""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, NamedTuple

import jax
import tyro
from jax.sharding import AbstractMesh

from moejax.commands.parse import parse
from moejax.config import Config
from moejax.load_config import load_config
from moejax.parallel.mesh import MeshConfig, sizes
from moejax.parallel.rules import Line
from moejax.stages.forecast import Stage, base_of, experts_of, host, lines, mesh_of, stages
from moejax.types import UserError

GB = 1e9
ROOM = 0.9  # of a device's memory that a program may have; the rest is the runtime's own
HERE = "here"


class Devices(NamedTuple):
    """How many devices, the memory of one, and where that was read."""

    count: int
    memory: float
    read: str


ON = {
    "v5e-8": Devices(8, 16 * GB, "docs.cloud.google.com/tpu/docs/v5e: HBM capacity per chip 16 GB"),
    "v5p-64": Devices(
        32, 95 * GB, "docs.cloud.google.com/tpu/docs/v5p: 95 GB; the name counts TensorCores, two of a chip"
    ),
    "8xH100": Devices(
        8, 80 * GB, "github.com/mlcommons/inference_results_v3.1, XE9680_H100_SXM_80GBx8_TRT.json: 80 GB"
    ),
}


@dataclass(frozen=True)
class Options(Config):
    """A configuration, and on what it is planned."""

    on: Annotated[str, tyro.conf.arg(metavar="DEVICES")] = ""
    """here, v5e-8, v5p-64 or 8xH100; left out: all of them."""
    groups: bool = False
    """Each group of parameters with its sharding, too."""


DESCRIPTION = (
    "Shardings of a configuration, and a forecast of the memory that each device needs. Nothing is allocated. The file "
    "is --config FILE; --fast is its smaller run; the flags are those of train.py. Where no axis of the mesh is given, "
    "those are chosen that leave least on a device while experts are evaluated."
)


def main(argv: Sequence[str]) -> None:
    """Print the plan. Raises UserError for a wrong file, field, device or axis."""
    path, config = _configured(argv)
    if config.on and config.on not in (HERE, *ON):
        raise UserError(f"--on is {config.on!r}: expected {HERE}, {', '.join(ON)}")
    print(f"{path}: {config.base.source}, {experts_of(config)} experts of rank {config.experts.rank}")
    if (held := host(config)) is not None:
        print(f"rows of all tasks in each host's memory, at most: {held / GB:.1f} GB")
    for name in [config.on] if config.on else (HERE, *ON):
        on = here() if name == HERE else ON[name]
        mesh = _mesh(config, on.count)
        print(f"\n{name}: {on.count} device{'s' * (on.count > 1)} of {on.memory / GB:.0f} GB ({on.read})")
        print("mesh " + ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items()))
        for line in _groups(lines(config, mesh)) if config.groups else ():
            print(line)
        for line in _table(stages(config, mesh), on.memory):
            print(line)


def _configured(argv: Sequence[str]) -> tuple[str, Options]:
    """The file, and the options over what it says."""
    words, rest, path = iter(argv), [], ""
    for word in words:
        name, equals, value = word.partition("=")
        if name == "--config":
            path = value if equals else next(words, "")
        else:
            rest.append(word)
    if not path and not {"-h", "--help"} & {*rest}:
        raise UserError("which run? Say python -m moejax plan --config configs/papers/arrow_phi2.py")
    config = load_config(path, "--fast" in rest) if path else Config()
    default = Options(**{field.name: getattr(config, field.name) for field in fields(config)})
    rest = [word for word in rest if word != "--fast"]
    return path, parse(Options, rest, "python -m moejax plan --config FILE", DESCRIPTION, default)


def here() -> Devices:
    """The devices of this machine; a CPU's share its memory."""
    found = jax.devices()
    said = found[0].memory_stats() or {}
    if "bytes_limit" in said:
        return Devices(len(found), said["bytes_limit"], f"{found[0].device_kind}, as its runtime says")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Devices(len(found), memory / len(found), f"{found[0].device_kind}: this machine's memory")


def _mesh(config: Config, devices: int) -> AbstractMesh:
    """The axes that are given, else those that leave least on a device. Raises UserError where they do not fit."""
    if config.mesh != MeshConfig():
        return mesh_of(*sizes(config.mesh, devices))
    pairs = _pairs(devices, base_of(config).block.kv_heads)
    every = [mesh_of(devices // (expert * model), expert, model) for expert, model in pairs]
    return min(every, key=lambda mesh: stages(config, mesh)[-1].total)


def _pairs(devices: int, heads: int) -> Iterator[tuple[int, int]]:
    """(expert, model) that divide the devices; no head is split."""
    for expert in range(1, devices + 1):
        for model in range(1, devices // expert + 1):
            if devices % (expert * model) == 0 and heads % model == 0:
                yield expert, model


def _groups(found: Sequence[Line]) -> Iterator[str]:
    wide = max(len(line.group) for line in found)
    for line in found:
        yield f"  {line.group:{wide}}  {line.bytes / 1e6:9.1f} MB, {line.each / 1e6:9.1f} on a device  {line.spec}"


def _table(found: Sequence[Stage], memory: float) -> Iterator[str]:
    """A line a stage, in GB on a device."""
    heads = ("rows", "base", "experts", "router", "state", "activations", "total")
    wide = max(len(stage.name) for stage in found)
    yield " ".join(["  GB on a device".ljust(wide + 2), *(f"{head:>{max(len(head), 7)}}" for head in heads)])
    for stage in found:
        parts = (stage.base, stage.bank, stage.router, stage.state, stage.activations, stage.total)
        cells = [f"{stage.rows:7}", *(f"{part / GB:.2f}" for part in parts)]
        line = [f"{cell:>{max(len(head), 7)}}" for cell, head in zip(cells, heads, strict=True)]
        yield " ".join([f"  {stage.name:{wide}}", *line, " " + verdict(stage, memory)])


def verdict(stage: Stage, memory: float) -> str:
    """Whether a stage fits on a device, and if not, how many rows a step would."""
    if stage.total <= ROOM * memory:
        return "fits"
    left = ROOM * memory - (stage.total - stage.activations)
    rows = math.floor(stage.rows * left / max(stage.activations, 1)) if left > 0 else 0
    return f"{rows} rows fit" if rows else "does not fit"
