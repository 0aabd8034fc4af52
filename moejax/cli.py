"""`python train.py --config configs/NAME.py [--field.sub value …]`: a config in, and how a command ends.

A user's error is one sentence and exit 2; Ctrl-C and SIGTERM end with the command that goes on, 130 and 143.
"""

import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from moejax.commands.parse import parse
from moejax.config import Config, check
from moejax.load_config import load_config
from moejax.types import UserError

OWN = """\
Besides the fields of the configuration, which are below with the defaults of the file:
  --config FILE   the configuration, as in configs/quickstart.py; required
  --fast          its smaller run, where it has one
  --debug         show the traceback of an error"""


class Terminated(SystemExit):
    """SIGTERM came: unwinds like an exit, so that what runs can save."""


def configure(argv: Sequence[str], script: str, description: str) -> Config:
    """The config that a command line asks for. Raises UserError for a wrong file, field or value."""
    rest, path, fast = [], None, False
    words = iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if name == "--config":
            path = value if equals else next(words, None)
            if not path:
                raise UserError("--config needs a file, as in --config configs/quickstart.py")
        elif word == "--fast":
            fast = True
        else:
            rest.append(word)
    if path is None and not {"-h", "--help"} & set(rest):
        raise UserError(f"which configuration? Say python {script} --config configs/quickstart.py")
    default = Config() if path is None else load_config(path, fast)
    prog = f"python {script}" + (f" --config {path}" if path else "")
    return check(parse(Config, rest, prog, f"{description}\n\n{OWN}", default))


def main(
    run: Callable[[Config], None], argv: Sequence[str] | None = None, script: str = "", description: str = ""
) -> int:
    """Run a command to its exit status: 0 done, 2 the user's error, 130 Ctrl-C, 143 SIGTERM."""
    given = list(sys.argv[1:] if argv is None else argv)
    keep_programs()
    script = script or sys.argv[0]
    try:
        with terminable():
            run(
                configure(
                    [word for word in given if word != "--debug"], script, description or run.__doc__ or ""
                )
            )
    except (UserError, OSError) as error:
        if "--debug" in given:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, Terminated) as stop:
        print(f"\nstopped; to go on: {shlex.join(['python', script, *given])}", file=sys.stderr)
        return 130 if isinstance(stop, KeyboardInterrupt) else 143
    return 0


def keep_programs() -> None:
    """Keep compiled programs in the user's cache from one command to the next (JAX_COMPILATION_CACHE_DIR moves it)."""
    import jax

    if jax.config.values["jax_compilation_cache_dir"] is None:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(home) / "moejax" / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@contextmanager
def terminable() -> Iterator[None]:
    """Within it SIGTERM raises Terminated, as Ctrl-C raises KeyboardInterrupt."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
