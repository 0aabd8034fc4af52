"""Bases: what a folder in Hugging Face layout holds, and which base experts are to be checked against."""

import json
from collections.abc import Iterable
from pathlib import Path

import jax
import numpy as np

from moejax.commands.findings import MOST, Findings
from moejax.experts.folder import INFO
from moejax.models import minilm, weights
from moejax.models.base import Base
from moejax.models.folder import read_tokenizer
from moejax.types import UserError


def base(folder: Path) -> Findings:
    """Every tensor that is missing, misshapen or not finite, and whether a tokenizer is there."""
    found, known = Findings(f"base {folder}", faults=list(weights.faults(folder)), most=MOST), None
    if not found.faults:
        whole = weights.load(folder)
        known = whole.model.config.vocab  # pyright: ignore[reportAttributeAccessIssue]
        found.lines += _about(whole)
    try:
        tokens = len(read_tokenizer(folder))
        if known is not None and tokens > known:
            found.faults.append(
                f"{folder}: the tokenizer has {tokens} tokens, the model {known}: they are of two bases"
            )
    except UserError as error:
        found.faults.append(str(error))
    return found


def _about(base: Base) -> list[str]:
    config = base.model.config  # pyright: ignore[reportAttributeAccessIssue]
    numbers = sum(int(np.size(leaf)) for leaf in jax.tree.leaves(base.params))
    return [
        f"{base.kind}: {base.layers} layers of width {config.width}, {config.vocab} tokens, "
        f"{numbers / 1e6:.1f}M numbers",
        f"{len(base.sites)} linears that an expert may adapt; fingerprint {base.fingerprint}",
    ]


def load(source: str) -> Base:
    """The base of this name, as `--base` gives it. Raises UserError when it cannot be read."""
    return weights.load(minilm.installed() if source == "minilm" else source)


def named_by(experts: Iterable[Path]) -> Base | None:
    """MiniLM, if an expert's `moejax.json` says that it was trained on it and it is installed."""
    said = {_fingerprint(folder) for folder in experts} - {None}
    try:
        installed = load("minilm") if said else None
    except UserError:
        return None
    return installed if installed is not None and installed.fingerprint in said else None


def _fingerprint(folder: Path) -> str | None:
    try:
        said = json.loads((folder / INFO).read_text())
    except (OSError, ValueError):
        return None
    found = said.get("base") if isinstance(said, dict) else None
    return found if isinstance(found, str) else None
