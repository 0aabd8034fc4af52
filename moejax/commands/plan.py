"""`python -m moejax plan`: what a recipe takes on devices that are not there, before anything is allocated."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import tyro
from jax.sharding import AbstractMesh

from moejax.commands.parse import parse
from moejax.config import Config
from moejax.load_config import load_config
from moejax.parallel.rules import Line
from moejax.stages.forecast import Stage, base_of, host, lines, mesh_of, stages
from moejax.types import UserError

GB = 1e9
ROOM = 0.9  # of a device's memory that a program may have; the rest is the runtime's own


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
class Options:
    """Axes that are left out are chosen: those that leave least on a device while experts are evaluated."""

    config: Annotated[str, tyro.conf.arg(metavar="FILE")] = ""
    """The recipe, as in configs/papers/arrow_phi2.py."""
    on: Annotated[str, tyro.conf.arg(metavar="DEVICES")] = ""
    """v5e-8, v5p-64 or 8xH100; left out: all of them."""
    expert: int | None = None
    """Devices along the axis of the experts."""
    model: int | None = None
    """Devices along the axis that splits each large matrix of the base."""
    groups: bool = False
    """Each group of parameters with its sharding, too."""


DESCRIPTION = (
    "Shardings of a recipe, and a forecast of the memory that each device needs. Nothing is allocated."
)


def main(argv: Sequence[str]) -> None:
    """Print the plan. Raises UserError for a wrong file, device or axis."""
    options = parse(Options, argv, "python -m moejax plan", DESCRIPTION)
    if not options.config:
        raise UserError("which recipe? Say python -m moejax plan --config configs/papers/arrow_phi2.py")
    if options.on and options.on not in ON:
        raise UserError(f"--on is {options.on!r}: expected {', '.join(ON)}")
    config = load_config(options.config)
    print(
        f"{options.config}: {config.base.source}, {len(config.data.held_in)} experts of rank {config.experts.rank}"
    )
    print(f"rows of all tasks in each host's memory, at most: {host(config) / GB:.1f} GB")
    for name in [options.on] if options.on else ON:
        mesh = _mesh(config, ON[name].count, options)
        print(f"\n{name}: {ON[name].count} devices of {ON[name].memory / GB:.0f} GB ({ON[name].read})")
        print("mesh " + ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items()))
        for line in _groups(lines(config, mesh)) if options.groups else ():
            print(line)
        for line in _table(stages(config, mesh), ON[name].memory):
            print(line)


def _mesh(config: Config, devices: int, options: Options) -> AbstractMesh:
    """The axes that are asked for, the others so that least lies on a device. Raises UserError where none fit."""
    fitting = [
        mesh_of(devices // (expert * model), expert, model)
        for expert, model in _pairs(devices, base_of(config).block.kv_heads)
        if options.expert in (None, expert) and options.model in (None, model)
    ]
    if not fitting:
        raise UserError(
            f"--expert {options.expert} and --model {options.model} do not divide {devices} devices and the heads of "
            "the base: choose others, or leave them out"
        )
    return min(fitting, key=lambda mesh: stages(config, mesh)[-1].total)


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
