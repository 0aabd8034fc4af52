"""Fuzzing a reader: cases in a worker process under limits of memory and time, which is started anew when it dies.

    outcomes = fuzz.run("models.fuzz_base", range(300))     # a module of tests/ with `case(seed, folder) -> str`

`case` makes a damaged input in an empty folder, reads it, and says what came of it: `fuzz.REFUSED` after one
UserError, or a word of its own. Whatever else it raises, a crash, and time or memory above the limit are faults:
`run` raises AssertionError that names each with its seed. Run one seed by hand: `python tests/fuzz.py MODULE SEED`.
"""

import importlib
import json
import os
import queue
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

REFUSED = "refused"
SPACE, SECONDS = 2 * 2**30, 5  # of address space; of a case's computing
SILENCE = 60  # seconds without an answer, on however busy a machine
HERE = Path(__file__).parent


def run(module: str, seeds: Iterable[int]) -> Counter[str]:
    """How often each word was said. Raises AssertionError for any other end of a case."""
    said: Counter[str] = Counter()
    faults: list[str] = []
    worker = None
    for seed in seeds:
        worker = worker or _Worker(module)
        word, detail = worker.ask(seed)
        if word == "fault":
            faults.append(f"seed {seed}: {detail}")
        said[word] += 1
        if worker.dead:
            worker = worker.end()
    if worker:
        worker.end()
    assert not faults, f"{len(faults)} faults of {module}:\n" + "\n".join(faults[:10])
    return said


class _Worker:
    """A process that is asked one seed after the other."""

    def __init__(self, module: str):
        one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MALLOC_ARENA_MAX"), "1")
        path = os.pathsep.join([str(HERE), str(HERE.parent)])
        keep = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
        self.process = subprocess.Popen(
            [sys.executable, __file__, module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=keep | one | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        self.answers: queue.Queue[str] = queue.Queue()
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()
        self.dead = False

    def _listen(self) -> None:
        assert self.process.stdout
        with self.process.stdout as answers:
            for line in answers:
                self.answers.put(line)
        self.answers.put("")

    def ask(self, seed: int) -> tuple[str, str]:
        assert self.process.stdin
        try:
            print(seed, file=self.process.stdin, flush=True)
            answer = self.answers.get(timeout=SILENCE)
        except (queue.Empty, BrokenPipeError):
            self.process.kill()
            answer = ""
        if answer:
            return tuple(json.loads(answer))
        self.dead = True
        number = -self.process.wait()
        why = f"computed longer than {SECONDS} s" if number == signal.SIGPROF else f"died of signal {number}"
        return "fault", why if number != signal.SIGKILL else f"said nothing for {SILENCE} s"

    def end(self) -> None:
        assert self.process.stdin
        with suppress(BrokenPipeError):  # it is dead already
            self.process.stdin.close()
        self.process.wait(timeout=SILENCE)
        self.listener.join()


def _serve(module: str, asked: Iterable[str]) -> None:
    """The worker: limits are set once the case's module and what it warms up are there."""
    case = importlib.import_module(module).case
    resource.setrlimit(resource.RLIMIT_AS, (SPACE, SPACE))
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    for seed in asked:
        folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            answer = case(int(seed), folder), ""
        except BaseException as error:  # MemoryError and SystemExit are faults of the reader too
            where = traceback.extract_tb(error.__traceback__)[-1]
            answer = "fault", f"{type(error).__name__}: {str(error)[:300]} ({where.filename}:{where.lineno})"
        signal.setitimer(signal.ITIMER_PROF, 0)
        shutil.rmtree(folder, ignore_errors=True)
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2:] or iter(sys.stdin.readline, ""))
