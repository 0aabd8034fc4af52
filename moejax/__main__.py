"""`python -m moejax COMMAND`: what can be asked without a run.

To add a command, give it a module with `main(argv)` and a line in COMMANDS.
"""

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

from moejax.types import UserError

COMMANDS = {  # name: module, what it does
    "methods": ("moejax.commands.methods", "list the survey's methods, and which fit the data at hand"),
    "pool": ("moejax.commands.pool", "add, drop, rename and list the experts of a folder, and undo it"),
    "merge": (
        "moejax.commands.merge",
        "write what a router makes of its experts: an adapter, or a whole model",
    ),
    "export": (
        "moejax.commands.export",
        "write one expert for PEFT, or merged into its base for transformers",
    ),
    "extract": ("moejax.commands.extract", "write the LoRA that is nearest to a full fine-tune"),
    "plan": ("moejax.commands.plan", "forecast what a recipe takes on TPUs and GPUs that are not there"),
    "lm-eval": ("moejax.commands.run_lm_eval", "run lm_eval's tasks on a base with experts and a method"),
    "check": (
        "moejax.commands.check",
        "say what a folder of data, experts or a base is, and what is wrong with it",
    ),
}


def usage() -> str:
    """The commands, a line each."""
    lines = [f"  {name:10} {what}" for name, (_, what) in COMMANDS.items()]
    return (
        "usage: python -m moejax COMMAND [OPTIONS]\n\n"
        + "\n".join(lines)
        + "\n\nCOMMAND --help has the options."
    )


def run(argv: Sequence[str]) -> int:
    """Run one command; errors of the user are one sentence on stderr and exit status 2, `--debug` traces them."""
    debug = "--debug" in argv
    argv = [word for word in argv if word != "--debug"]
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0
    if argv[0] not in COMMANDS:
        near = get_close_matches(argv[0], COMMANDS, 1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        print(f"error: there is no command {argv[0]!r}{hint} (only {', '.join(COMMANDS)})", file=sys.stderr)
        return 2
    try:
        import_module(COMMANDS[argv[0]][0]).main(argv[1:])
    except UserError as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
