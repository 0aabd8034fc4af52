"""`python saved.py CASE FOLDER`: a training loop in a process of its own, which ends as a command ends.

slow   steps of a twentieth of a second, for a signal to come between
full   saves step 1, then no file may grow beyond 4 kB, as on a full disk, and it goes on
"""

import resource
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from moejax.cli import ended
from moejax.train.step import State
from moejax.train.work import Work

STEPS = 200


def start() -> State:
    """Numbers that no compressor makes smaller."""
    return State(jnp.asarray(np.random.default_rng(0).normal(size=20_000), jnp.float32), {}, jnp.int32(0))


@jax.jit
def moved(state: State, number: int) -> tuple[State, jax.Array]:
    """Every step adds another number."""
    after = State(state.trainable + jnp.sin(1.0 + number), {}, state.step + 1)
    return after, jnp.mean(after.trainable**2)


def slow(folder: Path) -> None:
    def step(state, number):
        time.sleep(0.05)
        print(number, flush=True)
        return moved(state, number)

    Work(folder).loop("slow", step, start(), int, STEPS, rows=4)


def full(folder: Path) -> None:
    def step(state, number):
        if number == 1:
            while not (folder / "checkpoints" / "full" / "1").exists():  # written behind this step
                time.sleep(0.05)
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        return moved(state, number)

    Work(folder, every=0.0).loop("full", step, start(), int, 3, rows=4)


if __name__ == "__main__":
    case, folder = sys.argv[1], Path(sys.argv[2])
    sys.exit(ended(lambda: {"slow": slow, "full": full}[case](folder), [case], "saved.py"))
