"""A command that several processes run together: its flags, and how each of them begins and ends."""

import argparse
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

import jax
from rich.console import Console

from moejax.parallel import hosts
from moejax.parallel.cluster import Cluster, found, start
from moejax.parallel.supervise import FAILED, is_child, supervised, tied
from moejax.types import UserError


def apart(words: Sequence[str]) -> tuple[Cluster, list[str]]:
    """The flags that say how processes meet, and all other words. Raises UserError for a wrong value."""
    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    flags.add_argument("--dist", choices=("auto", "on", "off"))
    flags.add_argument("--coordinator-address")
    for name in ("num-processes", "process-id", "initialization-timeout", "heartbeat-timeout-seconds"):
        flags.add_argument(f"--{name}", type=int)
    try:
        given, rest = flags.parse_known_args(list(words))
    except argparse.ArgumentError as error:
        raise UserError(str(error).removeprefix("argument ")) from None
    cluster = Cluster(**{name: value for name, value in vars(given).items() if value is not None})
    count, which = cluster.num_processes, cluster.process_id
    if count is not None and which is not None and not 0 <= which < count:
        raise UserError(f"--process-id is {which}: expected 0 to {count - 1}, as --num-processes is {count}")
    return cluster, rest


def join(cluster: Cluster, rerun: str) -> int | None:
    """Join the other processes, if there are any, in a child of this process; its exit status, None in the child.

    rerun: the command that goes on. Raises UserError as `cluster.start` does.
    """
    why = found(cluster)
    if why is None:
        return None
    if not is_child():
        return supervised(sys.orig_argv[1:], rerun)
    say = tied()
    start(cluster, why)
    say(hosts.everyone(socket.gethostname()))
    hosts.heed()
    return None


def part(do: Callable[[], int], words: Sequence[str]) -> int:
    """`do()`, a whole command, to its exit status; one of several processes that fails does not wait for the others.

    Where the runtime raised, it is given the time to find out which process was lost, and ends this one.
    """
    try:
        status = do()
    except Exception as error:
        if hosts.count() == 1:
            raise
        traceback.print_exc()
        if isinstance(error, jax.errors.JaxRuntimeError):
            sys.stderr.flush()
            time.sleep(apart(words)[0].heartbeat_timeout_seconds + 5)
        _end(FAILED)
    if status and hosts.count() > 1:
        _end(status)
    return status


def speaker() -> Console:
    """Where a command prints: of several processes, process 0 alone does."""
    return Console() if hosts.speaks() else Console(quiet=True, force_terminal=False)


def _end(status: int) -> NoReturn:
    """End at once: the runtime's own end waits for processes that may never come to theirs."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
