"""`make bench-quick`: a few ratios of ours to the bare base, against those of `baseline.json`; a loss of 25 % fails.

Without torch, in under three minutes. A ratio counts as lost when a second measurement says the same.
`--write` makes what is measured the baseline.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from benchmarks import decode, layer, model
from benchmarks.cases import Size, draw
from benchmarks.layer import OUTPUT, SCORED
from benchmarks.machine import provenance
from benchmarks.measure import CLOCKS, Effort, Entry, measure
from moejax.models.weights import random_base

BASELINE = Path(__file__).with_name("baseline.json")
LOSS = 1.25  # of a baseline's ratio
EFFORT = Effort(seconds=2.5)
ENCODER = model.Setting(pools=(8, 128))
Ratios = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Config:
    """What is done with the ratios."""

    write: bool = False
    """Make them the baseline."""
    baseline: Path = BASELINE
    """Compare with this one."""


def makers() -> Iterator[tuple[str, Callable[[], list[Entry]], str]]:
    """(title, entries, the name of the entry whose ratio counts)."""
    for size, back in (
        *((Size(e=e), False) for e in (8, 32, 256)), *((Size(e=e), True) for e in (8, 256)),
        (Size(n=2048, d=384, e=32), False), (Size(n=8, e=256), False),
    ):  # fmt: skip
        title = f"{size}, forward" + " + backward" * back
        yield title, partial(_layer, size, back), OUTPUT.name
    for e in (8, 256):
        size = Size(n=1, e=e)
        name = f"{SCORED.name}, {decode.LOOP}"
        yield f"{size}, a loop of tokens, scored", partial(_loop, size), name
    for e in ENCODER.pools:
        yield f"{ENCODER}, {e} experts", partial(_encoder, e), model.named(e)


def _layer(size: Size, back: bool) -> list[Entry]:
    return _of(layer.entries(draw(size), back=back), OUTPUT.name)


def _loop(size: Size) -> list[Entry]:
    return _of(decode.entries(size, peers=False), f"{SCORED.name}, {decode.LOOP}")


def _encoder(e: int) -> list[Entry]:
    return _of(model.entries(random_base(ENCODER.config, scale=1.0), ENCODER), model.named(e))


def _of(entries: list[Entry], name: str) -> list[Entry]:
    """The entry of this name, and its bare one."""
    one = next(entry for entry in entries if entry.name == name)
    return [entry for entry in entries if entry.name in (one.bare, name)]


def ratio(make: Callable[[], list[Entry]], name: str, effort: Effort = EFFORT) -> dict[str, float]:
    """Clock -> median ratio to the bare call."""
    rows = {row["name"]: row for row in measure(make(), effort)}
    return {clock: rows[name]["over_bare"][clock][0] for clock in CLOCKS}


def lost(now: Mapping[str, float], before: Mapping[str, float]) -> bool:
    """Whether a ratio is more than a quarter above its baseline, on either clock."""
    return any(now[clock] > LOSS * before[clock] for clock in CLOCKS)


def compare(baseline: Ratios, effort: Effort = EFFORT) -> tuple[Ratios, list[str]]:
    """All ratios, and the titles of those that are lost; one without a baseline is new, and not lost."""
    found: Ratios = {}
    gone = []
    for title, make, name in makers():
        found[title] = ratio(make, name, effort)
        if title in baseline and lost(found[title], baseline[title]):
            again = ratio(make, name, effort)
            found[title] = {clock: min(again[clock], found[title][clock]) for clock in CLOCKS}
            if lost(found[title], baseline[title]):
                gone.append(title)
    return found, gone


def main(config: Config) -> int:
    """Print ratios beside their baseline; 1: something is lost."""
    known = json.loads(config.baseline.read_text()) if config.baseline.exists() else {"ratios": {}}
    found, gone = compare({} if config.write else known["ratios"])
    table = Table(
        "point", "now", "baseline", "", title="ours over bare, wall / processor", title_justify="left"
    )
    for title, now in found.items():
        before = known["ratios"].get(title)
        said = "lost" if title in gone else "" if before else "new"
        table.add_row(title, *(_cell(one) for one in (now, before)), said)
    Console().print(table)
    if config.write:
        made = {**provenance(), "ratios": found}
        config.baseline.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    return 1 if gone else 0


def _cell(values: Mapping[str, float] | None) -> str:
    return " / ".join(f"{values[clock]:.2f}" for clock in CLOCKS) if values else "–"


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
