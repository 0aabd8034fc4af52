"""Answer prompts from the shell. `python generate.py --base FOLDER --experts FOLDER --method arrow "PROMPT"`."""

import sys
from collections.abc import Sequence

from moejax.cli import ended
from moejax.commands import generate, processes


def main(given: Sequence[str]) -> int:
    """Answer, to the exit status: 0 done, 2 the user's error, 75 a process lost, 130 Ctrl-C, 143 SIGTERM."""
    words = [word for word in given if word != "--debug"]
    return processes.part(lambda: ended(lambda: generate.main(words), given, "generate.py"), words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
