"""Command lines: a dataclass of options in, one sentence out when they are wrong."""

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import redirect_stderr
from dataclasses import is_dataclass
from difflib import get_close_matches
from typing import Annotated, Any, TypeVar, cast, get_args, get_origin, get_type_hints

import tyro

from moejax.types import UserError

T = TypeVar("T")


def parse(kind: type[T], argv: Sequence[str], prog: str, description: str, default: T | None = None) -> T:
    """Options of this dataclass, by tyro; its docstrings are the help, `default` has the defaults.

    Raises UserError for an unknown option (with the nearest one) or a wrong value; `--help` exits with 0.
    """
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            options, unknown = tyro.cli(
                kind,
                default=default,  # type: ignore[arg-type]
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
        near = get_close_matches(unknown[0].partition("=")[0].replace("_", "-"), flags(kind), 1)
        hint = f", did you mean {near[0]}?" if near else ""
        raise UserError(f"{prog} does not know {unknown[0]!r}{hint} (see {prog} --help)")
    return cast(T, options)


def flags(kind: Any, prefix: str = "--") -> Iterator[str]:
    """Every flag of a dataclass, of those within it, and the short names that fields have; no positional one."""
    for name, hint in get_type_hints(kind, include_extras=True).items():
        inner, flag = hint, prefix + name.replace("_", "-")
        if get_origin(hint) is Annotated:
            inner, *notes = get_args(hint)
            if tyro.conf.Positional in notes:
                continue
            for note in notes:
                yield from getattr(note, "aliases", None) or ()
        if is_dataclass(inner):
            yield from flags(inner, f"{flag}.")
        else:
            yield flag


def apart(texts: Iterable[str]) -> tuple[str, ...]:
    """Words joined by commas as words of their own: `arrow(factor, k=2),uniform` are two, brackets stay whole."""
    found = []
    for text in texts:
        depth, word = 0, ""
        for letter in text:
            depth += (letter in "([{") - (letter in ")]}")
            if letter == "," and depth <= 0:
                found.append(word)
                word = ""
            else:
                word += letter
        found.append(word)
    return tuple(word.strip() for word in found if word.strip())


def _sentence(box: str) -> str:
    """The first paragraph of a boxed message, on one line."""
    lines = [line.strip().strip("│").strip() for line in box.splitlines()]
    lines = [line for line in lines if line and not line.startswith("╭")]
    end = next((n for n, line in enumerate(lines) if set(line) <= set("─╰╯")), len(lines))
    return " ".join(lines[:end])
