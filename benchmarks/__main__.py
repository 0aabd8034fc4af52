"""`python -m benchmarks`: all parts or some, saved as JSON after each, and the tables."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tyro
from tqdm import tqdm

from benchmarks import decode, goals, machine, memory, merging, model, points, report, training

PARTS = ("layer", "decode", "model", "merging", "memory", "training")


@dataclass(frozen=True)
class Config:
    """What is measured, and where it is saved."""

    parts: tuple[str, ...] = PARTS
    """Some of layer, decode, model, merging, memory, training."""
    out: Path = Path("runs/bench/results.json")
    """Where the numbers go; parts that are not run again stay as they are there."""
    peers: bool = True
    """Whether torch and peft run beside."""


def makers(rates: machine.Rates, peers: bool) -> dict[str, Callable[[], Iterator[dict[str, Any]]]]:
    """Each part as a stream of points."""
    return {
        "layer": partial(points.part, rates, peers=peers),
        "decode": partial(decode.part, rates, peers=peers),
        "model": partial(model.part, rates, peers=peers),
        "merging": partial(merging.part, peers=peers),
        "memory": partial(memory.part, peers=peers),
        "training": partial(training.part, peers=peers),
    }


def main(config: Config) -> None:
    """Measure, save, print."""
    begun, rates = time.perf_counter(), machine.rates()
    known: dict[str, Any] = {}
    if config.out.exists() and set(config.parts) != set(PARTS):
        known = json.loads(config.out.read_text(encoding="utf-8"))["parts"]
    results = {**machine.provenance(), "rates": rates._asdict(), "parts": known, "complete": False}
    makes = makers(rates, config.peers)
    for name in config.parts:
        found = known[name] = []
        for point in tqdm(makes[name](), desc=name, unit="point"):
            found.append(point)
            save(results | {"seconds": time.perf_counter() - begun}, config.out)
    complete = config.peers and set(config.parts) == set(PARTS)
    results |= {"complete": complete, "seconds": time.perf_counter() - begun}
    results["goals"] = [
        {"name": v.goal.name, "most": v.goal.most, "found": v.found and v.found._asdict(), "verdict": v.said}
        for v in goals.verdicts(results)
    ]
    save(results, config.out)
    report.show(results)


def save(results: dict[str, Any], path: Path) -> None:
    """All that was found so far."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Config))
