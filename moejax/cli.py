"""`python train.py --config configs/NAME.py [--field.sub value …]`: a config in, and how a command ends.

Without a file: `--base FOLDER --experts FOLDER --data-dir FOLDER`, one's own base, experts and tasks.

A user's error is one sentence and exit 2; Ctrl-C and SIGTERM end with the command that goes on, 130 and 143.
"""

import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

from moejax.check_config import check
from moejax.commands import processes
from moejax.commands.parse import apart, parse
from moejax.config import Config, plain
from moejax.evaluate.results import versions
from moejax.load_config import load_config
from moejax.parallel import hosts
from moejax.parallel.agree import agree
from moejax.parallel.mesh import on
from moejax.stages.shrink import shrink
from moejax.train.code_version import code_version
from moejax.types import UserError

OWN = """\
Besides the fields of the configuration, which are below with the defaults of the file:
  --config FILE   the configuration, as in configs/quickstart.py; with --experts it may be left out
  --fast          its smaller run, where it has one
  --shrink        a paper's recipe with a tiny random base, invented data and few steps (docs/recipes.md)
  --debug         show the traceback of an error
Of several processes that run it together (docs/scale.md):
  --dist auto|on|off              join them where a cluster is found, always, or never
  --coordinator-address HOST:PORT, --num-processes N, --process-id P
                                  where they meet, how many they are, and which this is, if no cluster tells
  --heartbeat-timeout-seconds S   after which a silent process is lost (100)
  --initialization-timeout S      for which the others are waited for (300)"""


AFTER = "; what was saved before is whole: see to the disk, or give another --run, and say the command again"


class Terminated(SystemExit):
    """SIGTERM came: unwinds like an exit, so that what runs can save."""


def configure(argv: Sequence[str], script: str, description: str) -> Config:
    """The config that a command line asks for. Raises UserError for a wrong file, field or value."""
    rest, path, fast, small = [], None, False, False
    words = iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if name == "--config":
            path = value if equals else next(words, None)
            if not path:
                raise UserError("--config needs a file, as in --config configs/quickstart.py")
        elif word == "--fast":
            fast = True
        elif word == "--shrink":
            small = True
        else:
            rest.append(word)
    given = {word.partition("=")[0].replace("_", "-") for word in rest}
    default = _own(given, script, fast) if path is None else load_config(path, fast)
    if given & {"--data-dir", "--data.folder"} and default.data.source == "generated":
        default = replace(default, data=replace(default.data, source="folder"))
    prog = f"python {script}" + (f" --config {path}" if path else "")
    config = parse(Config, rest, prog, f"{description}\n\n{OWN}", default)
    config = replace(config, methods=apart(config.methods))
    return check(shrink(config) if small else config)


def _own(given: Set[str], script: str, fast: bool) -> Config:
    """What holds without a file, for a pool of one's own. Raises UserError when a file, or the tasks, are missing."""
    if not given & {"-h", "--help"}:
        if not given & {"--experts", "--pool"}:
            raise UserError(
                f"which configuration? Say python {script} --config configs/quickstart.py, or --base FOLDER "
                "--experts FOLDER --data-dir FOLDER for your own base, experts and tasks"
            )
        if fast:
            raise UserError(
                "--fast is the smaller run of a configuration: say --config FILE, or leave it out"
            )
        if not given & {"--data", "--data.source", "--data-dir", "--data.folder"}:
            raise UserError(
                "--experts needs tasks to compare methods on: say --data-dir FOLDER (docs/data.md)"
            )
    return Config(run="runs/own")


def main(
    run: Callable[[Config], None], argv: Sequence[str] | None = None, script: str = "", description: str = ""
) -> int:
    """Run a command to its exit status: 0 done, 2 the user's error, 75 a process lost, 130 Ctrl-C, 143 SIGTERM."""
    given = list(sys.argv[1:] if argv is None else argv)
    script = script or sys.argv[0]
    words = [word for word in given if word != "--debug"]

    def begin() -> int:
        cluster, rest = processes.apart(words)
        config = configure(rest, script, description or run.__doc__ or "")
        if (status := processes.join(cluster, again(script, given))) is not None:
            return status
        agree(config=plain(config), versions={"moejax": code_version(), **versions()})
        with on(config.mesh):
            run(config)
        return 0

    return processes.part(lambda: ended(begin, given, script, AFTER), words)


def ended(do: Callable[[], int | None], given: Sequence[str], script: str, advice: str = "") -> int:
    """Do it to its exit status, as `main` does; given: the words that say it again; advice: after a system's error.

    Of several processes, one speaks for all: the others say only what goes wrong in them alone.
    """
    keep_programs()
    os.environ.setdefault(
        "TRANSFORMERS_VERBOSITY", "error"
    )  # read when it is imported; it would ask for torch
    try:
        with terminable():
            return do() or 0
    except (UserError, OSError) as error:
        if "--debug" in given:
            raise
        if (where := hosts.whose()) is not None:
            print(f"error: {where}{error}{'' if isinstance(error, UserError) else advice}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, Terminated, hosts.Stopped) as stop:
        if hosts.speaks():
            print(f"\nstopped; to go on: {again(script, given)}", file=sys.stderr)
        if isinstance(stop, hosts.Stopped):
            hosts.leave()
        return 130 if isinstance(stop, KeyboardInterrupt) else int(str(stop.code))


def again(script: str, given: Sequence[str]) -> str:
    """The command that goes on where this one stops."""
    return shlex.join(["python", script, *given])


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
