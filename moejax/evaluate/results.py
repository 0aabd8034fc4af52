"""results.json: every number of a comparison, and what made it."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from statistics import mean
from typing import Any

import jax

from moejax.train.code_version import commit

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "transformers", "grain")


def provenance() -> dict[str, Any]:
    """Versions, commit and device of this process."""
    device = jax.devices()[0]
    return {
        "versions": versions(),
        "commit": commit(),
        "device": f"{device.platform} {device.device_kind} × {jax.device_count()}",
    }


def versions() -> dict[str, str]:
    """Python's version and those of the packages that numbers come from."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def averaged(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of several runs that differ in their seed alone: each number is the mean over seeds.

    Interval bounds are averaged too, so they say how wide a single run's interval is.
    """
    first = runs[0]
    rows = [_mean([run["rows"][i] for run in runs]) for i in range(len(first["rows"]))]
    seeds = [seed for run in runs for seed in run["seeds"]]
    return {
        **first,
        "title": f"{first['title'].split(',')[0]}, mean of seeds {seeds}",
        "seeds": seeds,
        "rows": rows,
    }


def _mean(values: Sequence[Any]) -> Any:
    """Leaf by leaf: numbers are averaged, the rest is the first's; a number that a run lacks is none."""
    first = values[0]
    if any(value is None for value in values):
        return None
    if isinstance(first, Mapping):
        return {
            name: _mean([value[name] for value in values]) for name in first if all(name in v for v in values)
        }
    if isinstance(first, list) and all(len(value) == len(first) for value in values):
        return [_mean(leaves) for leaves in zip(*values, strict=True)]
    if isinstance(first, bool) or not isinstance(first, int | float):
        return first
    return first if all(value == first for value in values) else mean(values)
