"""Command lines: a dataclass of options in, one sentence out when they are wrong."""

import io
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import fields
from difflib import get_close_matches
from typing import TypeVar

import tyro

from moejax.types import UserError

T = TypeVar("T")


def parse(kind: type[T], argv: Sequence[str], prog: str, description: str) -> T:
    """Options of this dataclass, by tyro; its docstrings are the help.

    Raises UserError for an unknown option (with the nearest one) or a wrong value; `--help` exits with 0.
    """
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            options, unknown = tyro.cli(
                kind,
                prog=prog,
                description=description,
                args=list(argv),
                return_unknown_args=True,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as exit:
        if exit.code in (0, None):
            raise
        raise UserError(f"{_sentence(said.getvalue())} (see {prog} --help)") from None
    if unknown:
        flags = [f"--{field.name.replace('_', '-')}" for field in fields(kind)]  # type: ignore[arg-type]
        near = get_close_matches(unknown[0].partition("=")[0], flags, 1)
        hint = f", did you mean {near[0]}?" if near else ""
        raise UserError(f"{prog} does not know {unknown[0]!r}{hint} (see {prog} --help)")
    return options


def _sentence(box: str) -> str:
    """The first paragraph of a boxed message, on one line."""
    lines = [line.strip().strip("│").strip() for line in box.splitlines()]
    lines = [line for line in lines if line and not line.startswith("╭")]
    end = next((n for n, line in enumerate(lines) if set(line) <= set("─╰╯")), len(lines))
    return " ".join(lines[:end])
