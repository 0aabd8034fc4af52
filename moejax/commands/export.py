"""`python -m moejax export EXPERT OUT --base SOURCE`: one expert for PEFT, or merged into its base for transformers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from moejax.commands import check_base
from moejax.commands.out import Form, check, write_out
from moejax.commands.parse import parse
from moejax.experts.files import read
from moejax.experts.report import line
from moejax.types import UserError

DESCRIPTION = (
    "Writes an expert of LoRAs anew, as PEFT saves it today: whatever layout, names and dtype its folder has. "
    "With --full it is merged into its base, a whole model."
)


@dataclass(frozen=True, kw_only=True)
class Options(Form):
    """Which expert, where it goes, and as what."""

    expert: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="EXPERT")]]
    """the expert's folder"""
    out: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="OUT")]]
    """the folder to write; it must not be there"""
    base: str
    """Its base: a Hugging Face folder, or `minilm`."""
    allow_base_mismatch: bool = False
    """Take it although it says that it was trained on another base."""
    ignore_saved_modules: bool = False
    """Take its LoRAs although it holds whole trained modules too (`modules_to_save`), without those modules."""


def main(argv: Sequence[str]) -> None:
    """Write the folder. Raises UserError on an expert that is no LoRA, or that does not fit its base."""
    options = parse(Options, argv, "python -m moejax export", DESCRIPTION)
    check(options, options.out)
    base = check_base.load(options.base)
    expert, report = read(
        options.expert, base.sites, base.shapes, base.fingerprint, options.allow_base_mismatch,
        homes=base.homes, ignore_saved=options.ignore_saved_modules,
    )  # fmt: skip
    if not expert.loras:
        raise UserError(
            f"{options.expert}: no LoRA: only LoRAs can be exported (of a whole model, see extract)"
        )
    print(line(report))
    for warning in report.warnings:
        print(f"warning: {warning}")
    print(write_out(options.out, expert, base, options))
