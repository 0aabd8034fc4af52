"""`python -m moejax lm-eval`: lm_eval's own command, with moejax among its models."""

import json
import sys
from collections.abc import Sequence
from dataclasses import fields

from moejax.commands.routed import Routed
from moejax.types import UserError

USAGE = """\
usage: python -m moejax lm-eval --base FOLDER --experts FOLDER --method arrow --tasks TASKS [lm_eval's options]

{ours}
are moejax's (python generate.py --help explains them); all other options are those of lm_eval,
whose own help is python -m moejax lm-eval run --help."""
OWN = ("run", "ls", "validate")  # lm_eval's commands


def main(argv: Sequence[str]) -> None:
    """Run lm_eval. Raises UserError where it is not installed, and for what it cannot find."""
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE.format(ours=", ".join(f"--{field.name.replace('_', '-')}" for field in fields(Routed))))
        return
    try:
        from lm_eval.__main__ import cli_evaluate  # pyright: ignore[reportMissingImports]
        from lm_eval.api.registry import model_registry  # pyright: ignore[reportMissingImports]

        from moejax.commands.harness import Moejax
    except ImportError as error:
        raise UserError(f"lm_eval cannot be imported ({error}): pip install 'moejax[lm-eval]'") from error
    if "moejax" not in model_registry:
        model_registry.register("moejax", target=Moejax)
    command, words = (argv[0], argv[1:]) if argv[0] in OWN else ("run", argv)
    ours, theirs = apart(words)
    chosen = ["--model", "moejax"] if command == "run" else []
    if ours:
        chosen += ["--model_args", json.dumps(ours)]
    before, sys.argv = sys.argv, ["lm-eval", command, *chosen, *theirs]
    try:
        cli_evaluate()
    except (ValueError, KeyError, OSError) as error:  # how it says that a task or a file is not there
        raise UserError(f"lm_eval: {error}") from error
    finally:
        sys.argv = before


def apart(argv: Sequence[str]) -> tuple[dict[str, str | bool], list[str]]:
    """Options of `Routed` by name, and the other words; flags may have - or _. Raises UserError for a lacking value."""
    names = {field.name: field for field in fields(Routed)}
    ours: dict[str, str | bool] = {}
    theirs: list[str] = []
    words = iter(argv)
    for word in words:
        flag, equals, value = word.partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        if not flag.startswith("--") or name not in names:
            theirs.append(word)
        elif isinstance(names[name].default, bool):
            ours[name] = True
        else:
            given = value if equals else next(words, None)
            if given is None:
                raise UserError(f"{flag} needs a value")
            ours[name] = given
    return ours, theirs
