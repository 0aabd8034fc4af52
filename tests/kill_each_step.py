"""`python tests/kill_each_step.py CASES`: pool commands, each killed before each of its effects on the disk.

CASES is a JSON file, a list of [WORLD, OUT, MEND, WORDS]. For step 1, 2, … a copy OUT/0001, OUT/0002, … of the folder
WORLD is made, and a forked child runs `python -m moejax WORDS` within it and kills itself where it is about to touch
the disk for that time; the last copy is of the command that nothing killed, and has its effects, a line each, in the
file `effects`. With MEND, the same for the command that comes next, `pool list pool`: OUT/0002.0001 was killed at step
2, and its mending at step 1.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import ml_dtypes  # noqa: F401  # imported here, not again in every child
import safetensors  # noqa: F401

import moejax.commands.pool  # noqa: F401
from moejax.__main__ import run

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
EFFECTS = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate")


def killed_at(step: int, world: Path, argv: list[str]) -> bool:
    """Run a command in a child that is killed before its effect number `step`; whether it came so far."""
    pid = os.fork()
    if pid:
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert status in (0, -signal.SIGKILL), f"{argv} ended with {status}"
        return status != 0
    os.chdir(world)
    log = os.open("effects", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    seen = 0

    def hook(event, args):
        nonlocal seen
        if event in EFFECTS or (event == "open" and isinstance(args[2], int) and args[2] & WRITES):
            seen += 1
            if seen == step:
                os.kill(os.getpid(), signal.SIGKILL)
            os.write(log, f"{event} {args[0]}\n".encode())

    os.fsync = lambda handle: None  # a kill is no power cut, and the disk is slow
    sys.addaudithook(hook)
    os._exit(run(argv))


def kill_each_step(world: Path, out: Path, prefix: str, argv: list[str]) -> list[Path]:
    """The worlds of the commands that were killed."""
    worlds, step = [], 1
    while True:
        one = out / f"{prefix}{step:04}"
        shutil.copytree(world, one)
        if not killed_at(step, one, argv):
            return worlds
        worlds.append(one)
        step += 1


def main(cases: Path) -> None:
    for world, out, mend, argv in json.loads(cases.read_text()):
        for one in kill_each_step(Path(world), Path(out), "", argv):
            if mend:
                kill_each_step(one, Path(out), f"{one.name}.", ["pool", "list", "pool"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
