"""Several processes that run one command: who speaks and writes, and what all of them must know alike.

They keep in step by the key-value store of JAX's coordination service, which needs no device and no program, and
which ends every process when one is lost.
"""

import itertools
import json
import signal
from collections.abc import Callable
from typing import Any, TypeVar

import jax

from moejax.types import UserError

Value = TypeVar("Value")
FOREVER = 14 * 24 * 3600 * 1000  # ms: a lost process ends the wait, no clock does
TOGETHER = 5  # seconds in which all processes meet an error that is of all
STOP = "moejax/stop"
_turns = itertools.count()  # the same in every process, as all come to the same calls in the same order


class Stopped(SystemExit):
    """A signal came to one of several processes; all of them raise this at one point, and can still save together."""


def count() -> int:
    """How many processes there are; 1 where none was started beside this one."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def index() -> int:
    """Which of them this is."""
    return jax.process_index() if jax.distributed.is_initialized() else 0


def speaks() -> bool:
    """Whether this process prints and writes: process 0 does, for all."""
    return index() == 0


def first(do: Callable[[], Value]) -> Value:
    """`do()` in process 0 alone; every process gets its result, a plain value, when it is done, or raises its error.

    What it wrote is there for all that read afterwards. It must run no program over devices of other processes.
    Raises Stopped where a signal has come, to any of them (`heed`).
    """
    if count() == 1:
        return do()
    key = f"moejax/first/{next(_turns)}"
    if not speaks():
        said = json.loads(_store().blocking_key_value_get(key, FOREVER))
        if "error" in said:
            raise UserError(said["error"])
        if "signal" in said:
            raise Stopped(128 + said["signal"])
        return said["value"]
    if came := _store().key_value_dir_get(STOP):
        number = int(came[0][1])
        _store().key_value_set(key, json.dumps({"signal": number}))
        raise Stopped(128 + number)
    try:
        value = do()
    except (UserError, OSError) as error:
        _store().key_value_set(key, json.dumps({"error": str(error)}))
        raise
    _store().key_value_set(key, json.dumps({"value": value}))
    return value


def write(do: Callable[[], Any]) -> None:
    """`do()` in process 0 alone, once all are done with what it may replace; they wait for its end."""
    if count() > 1:
        _store().wait_at_barrier(f"moejax/write/{next(_turns)}", FOREVER)

    def done() -> None:
        do()

    first(done)


def everyone(said: str) -> list[str]:
    """What each process says, in their order."""
    turn, store = next(_turns), _store()
    store.key_value_set(f"moejax/everyone/{turn}/{index()}", said)
    return [store.blocking_key_value_get(f"moejax/everyone/{turn}/{p}", FOREVER) for p in range(count())]


def heed() -> None:
    """From now on a first SIGINT or SIGTERM to any process stops all, where they next meet; a second acts as before."""

    def note(number: int, before: Any) -> None:
        _store().key_value_set(f"{STOP}/{index()}", str(number), allow_overwrite=True)
        signal.signal(number, before)

    for number in (signal.SIGINT, signal.SIGTERM):
        before = signal.getsignal(number)
        signal.signal(number, lambda got, frame, before=before: note(got, before))


def leave() -> None:
    """Part in order, all at one point, so that none takes another for lost; afterwards this process is alone."""
    jax.distributed.shutdown()


def whose() -> str | None:
    """After an error: what to say before it; None: nothing, process 0 says it, as all have met it.

    Then they part in order. With one process there is nothing to say before it.
    """
    if count() == 1:
        return ""
    who = index()
    try:
        _store().wait_at_barrier("moejax/failed", 1000 * TOGETHER)
    except jax.errors.JaxRuntimeError:
        return f"process {who}: "
    leave()
    return "" if who == 0 else None


def _store() -> Any:
    from jax._src import distributed  # the one door to the store: neither jax nor orbax has a public one

    return distributed.global_state.client
