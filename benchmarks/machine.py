"""The machine that was measured on: what it is, and how fast it multiplies and reads."""

import os
import platform
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.measure import timed

PACKAGES = ("jax", "jaxlib", "numpy", "torch", "peft", "transformers")


class Rates(NamedTuple):
    """Operations and bytes a second: the best of several, all cores."""

    flops: float
    bytes: float


def cores() -> int:
    """Cores that this process may use; torch is given as many threads as JAX takes."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def provenance() -> dict[str, Any]:
    """Date, versions, processor, cores."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "versions": found,
        "processor": _processor(),
        "cores": cores(),
        "device": f"{jax.devices()[0].platform} {jax.devices()[0].device_kind}",
    }


def _processor() -> str:
    known = Path("/proc/cpuinfo")
    if known.exists():
        for line in known.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def rates(width: int = 2048, megabytes: int = 256) -> Rates:
    """What a square product and a sum over a large array reach."""
    w = jnp.ones((width, width), jnp.float32)
    big = jnp.ones((megabytes, 2**18), jnp.float32)
    product, total = jax.jit(jnp.matmul), jax.jit(partial(jnp.sum, axis=1))
    seconds = [
        _best(lambda: jax.block_until_ready(product(w, w))),
        _best(lambda: jax.block_until_ready(total(big))),
    ]
    return Rates(2.0 * width**3 / seconds[0], big.nbytes / seconds[1])


def _best(call: Any) -> float:
    call()
    return min(timed(call, 1)[0] for _ in range(10))
