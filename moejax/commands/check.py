"""`python -m moejax check FOLDER`: recognises what a folder is, and says what is wrong with it and where."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from moejax.commands import check_base, check_data, check_experts, check_run
from moejax.commands.findings import Findings, plural
from moejax.commands.parse import parse
from moejax.experts.folder import CONFIG, INFO, PICKLE, WEIGHTS
from moejax.types import UserError

LOOKED = (
    "tasks.json (data), adapter_config.json, or config.json and moejax.json (an expert), or folders with them "
    "(experts), router.json (a router), "
    "config.json with stages or experts beside it (a run), or config.json and model.safetensors (a base)"
)
EXPERT = {CONFIG, WEIGHTS, PICKLE, INFO}
PARTS_OF_A_RUN = {"experts", "routers", "metrics.jsonl"}


@dataclass(frozen=True)
class Options:
    """What to look at."""

    folder: tyro.conf.Positional[Path]
    """Data (docs/data.md), an expert, a folder of experts, a router, a run, or a base in Hugging Face layout."""
    base: str | None = None
    """Base to check against: a folder, a name on the hub, or `minilm`; none: the one that the folder names, if it is
    at hand."""


DESCRIPTION = "Recognises what FOLDER is and says what is wrong with it; exit status 1 when something is."


def main(argv: Sequence[str]) -> None:
    """Print what was found. Exits with 1 on faults; raises UserError when the folder is not recognised."""
    options = parse(Options, argv, "python -m moejax check", DESCRIPTION)
    found = look(options.folder, options.base)
    for line in found.said():
        print("".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in line))
    print(plural(found.count(), "fault") if found.count() else "no fault found")
    if found.count():
        raise SystemExit(1)


def look(folder: Path, base: str | None = None) -> Findings:
    """What a folder is, and what is wrong with it. Raises UserError when it is nothing that is known here."""
    kind = kind_of(folder)
    if kind == "base":
        return check_base.base(folder)
    against = None if base is None else check_base.load(base)
    if kind == "data":
        return check_data.data(folder, against)
    if kind == "expert":
        return check_experts.expert(folder, against or check_base.named_by([folder]))
    if kind == "experts":
        return check_experts.experts(folder, against)
    return (check_run.router if kind == "router" else check_run.run)(folder, against)


def kind_of(folder: Path) -> str:
    """`data`, `expert`, `experts`, `router`, `run` or `base`. Raises UserError when it is none of them."""
    if not folder.is_dir():
        raise UserError(
            f"{folder} is {'a file: give its folder' if folder.exists() else 'no folder that is there'}"
        )
    names = {path.name for path in folder.iterdir()}
    if {"router.json", "router.safetensors"} & names:
        return "router"
    if names & EXPERT:
        return "expert"
    if "stages" in names or ("config.json" in names and names & PARTS_OF_A_RUN):
        return "run"
    if "tasks.json" in names:
        return "data"
    if "config.json" in names or any(name.startswith(("model.safetensors", "model-0")) for name in names):
        return "base"
    if any((path / name).is_file() for path in folder.iterdir() if path.is_dir() for name in EXPERT):
        return "experts"
    if any(name.endswith((".jsonl", ".jsonl.gz")) for name in names):
        return "data"
    raise UserError(f"{folder} is nothing that is known here: it was searched for {LOOKED}")
