"""The mesh of a run: devices along three axes, `data`, `expert` and `model`, whatever their number."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType, Mesh

from moejax.types import UserError

AXES = ("data", "expert", "model")
ROWS = ("data", "expert")
"""The axes that split the rows of a batch: outside routed places no device computes another's rows."""


@dataclass(frozen=True)
class MeshConfig:
    """How many devices stand along each axis."""

    data: int | None = None
    """Parts of the batch, parameters of the base split among them too; None: what the other axes leave."""
    expert: int = 1
    """Parts of the pool, each with its own experts; they split the batch too."""
    model: int = 1
    """Parts of each large matrix of the base."""


def sizes(config: MeshConfig, devices: int) -> tuple[int, int, int]:
    """(data, expert, model), whose product is the number of devices. Raises UserError where they do not fit."""
    fixed = {"mesh.expert": config.expert, "mesh.model": config.model}
    if config.data is not None:
        fixed["mesh.data"] = config.data
    for name, size in fixed.items():
        if size < 1:
            raise UserError(f"{name} is {size}: it must be at least 1")
    used = math.prod(fixed.values())
    said = " * ".join(f"{name} {size}" for name, size in fixed.items())
    if config.data is None and devices % used:
        raise UserError(f"{said} does not divide the {devices} devices: choose axes whose product does")
    if config.data is not None and used != devices:
        raise UserError(
            f"{said} = {used}, but there are {devices} devices: leave mesh.data out, or make it fit"
        )
    return config.data or devices // used, config.expert, config.model


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of all devices, or of those given. Raises UserError where the axes do not fit their number."""
    given = list(jax.devices() if devices is None else devices)
    return jax.make_mesh(
        sizes(config, len(given)), AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=given
    )


def split(mesh: Mesh | AbstractMesh) -> int:
    """Into how many parts the rows of a batch are split."""
    return math.prod(mesh.shape[axis] for axis in ROWS)


def parts(axis: str) -> int:
    """How many devices stand along an axis of the mesh that is set; 1 where none is."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.shape[axis]


def whole(count: int, axis: str) -> int:
    """The least multiple of `parts` that is not below count: what pads to the mesh."""
    return -(-count // parts(axis)) * parts(axis)


@contextmanager
def on(config: MeshConfig) -> Iterator[None]:
    """Within it the mesh of these sizes is set, over all devices; one device needs none.

    Nor do a CPU's devices unless sizes are given: they are parts of one chip, which one program fills by itself.
    """
    devices = jax.devices()
    alone = jax.process_count() == 1 and devices[0].platform == "cpu" and config == MeshConfig()
    if len(devices) == 1 or alone:
        sizes(config, 1)
        yield
        return
    with jax.set_mesh(make_mesh(config)):
        yield
