"""`python -m moejax extract BASE FINE_TUNE OUT`: the LoRA that is nearest to a full fine-tune."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from moejax.commands import check_base
from moejax.commands.out import TASK_TYPES, Smaller, check, said_of
from moejax.commands.parse import parse
from moejax.experts import files
from moejax.experts.extract import extract
from moejax.types import UserError

DESCRIPTION = (
    "Writes the LoRA of low rank that is nearest to what a full fine-tune changed in each linear, by singular "
    "values, and states the error. What moved elsewhere (norms, embeddings, a head) is told, and left out."
)


@dataclass(frozen=True, kw_only=True)
class Options(Smaller):
    """Which models, where the LoRA goes, and of which rank."""

    base: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="BASE")]]
    """the model before: a Hugging Face folder, or `minilm`"""
    fine_tune: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="FINE_TUNE")]]
    """the model after: a folder of the same architecture"""
    out: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="OUT")]]
    """the folder to write; it must not be there"""
    without_biases: bool = False
    """Leave out what the linears' biases moved, which PEFT before 0.13 and many servers cannot load (`lora_bias`)."""


def main(argv: Sequence[str]) -> None:
    """Write the folder. Raises UserError when neither is asked for, or the models do not belong together."""
    options = parse(Options, argv, "python -m moejax extract", DESCRIPTION)
    check(options, options.out)
    if not options.rank and options.energy == 1.0:
        raise UserError("how much is to be kept? Say --energy .99, --rank 16, or both")
    base = check_base.load(options.base)
    if base.homes.whole is None:
        raise UserError(f"{options.base}: the whole base is not at hand: give its folder")
    found = extract(
        options.fine_tune, base.homes.whole, set(base.sites.values()), options.out.name,
        options.rank or None, options.energy, not options.without_biases,
    )  # fmt: skip
    info = {"description": f"extracted from {options.fine_tune.name}", "provenance": "moejax extract"}
    files.write(
        options.out, found.expert._replace(info=info), base.sites, fingerprint=base.fingerprint,
        base_name=base.folder, task_type=TASK_TYPES.get(base.kind),
    )  # fmt: skip
    ranks = sorted(len(one.a) for one in found.expert.loras.values())
    print(
        f"{options.out}: {len(ranks)} modules, rank {ranks[0]} to {ranks[-1]}, {said_of(found.error, found.worst)}"
    )
    if found.others:
        print(
            f"left out: {len(found.others)} tensors that no LoRA can change, {found.others[0]} first: "
            f"{found.left:.3g} of the whole difference, in norm"
        )
