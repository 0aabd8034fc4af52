"""A small parent for each process of several: JAX's runtime aborts without an exception when a peer is lost.

The parent runs the same command as a child, hands signals and errors on, and says what happened when the child does
not end by itself. It never starts the runtime, so what takes the child down leaves it standing. They share a pair of
sockets: by it the child learns that the parent has gone, and the parent which hosts take part.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO

LOST = 75  # EX_TEMPFAIL: the same command, said again, goes on
DOOR = "MOEJAX_SUPERVISED"  # holds the number of the child's socket
KEPT = 65536  # bytes of what the child said last
FAILED = 1  # the status of a Python exception that nobody caught
UNHEALTHY = re.compile(rb"stopped sending heartbeats\):\s*(\d+(?:[,\s]+\d+)*)")  # numbers of processes
RUNTIME = re.compile(
    rb"coordination|JAX distributed service|heartbeat|Gloo|NCCL|Connection (closed|reset)", re.IGNORECASE
)


def is_child() -> bool:
    """Whether this process has such a parent."""
    return DOOR in os.environ


def supervised(argv: Sequence[str], rerun: str) -> int:
    """Run the command as a child, to the exit status: its own; 75 where the runtime gave up, a peer being lost.

    argv: the words after python; rerun: the command that goes on, as it is printed.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        start = time.monotonic()
        env = {**os.environ, DOOR: str(theirs.fileno())}
        child = subprocess.Popen(
            [sys.executable, *argv],
            stderr=subprocess.PIPE,
            env=env,
            pass_fds=[theirs.fileno()],
            process_group=0,
        )  # a group of its own: a terminal's Ctrl-C comes once, through this process
        theirs.close()
        assert child.stderr is not None
        before = {
            number: signal.signal(number, lambda got, frame: child.send_signal(got))
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        }
        try:
            with child.stderr:
                said = _hand_on(child.stderr)
            status = child.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        hosts, seconds = _hosts(ours), time.monotonic() - start
    if status >= 0 and not (status == FAILED and RUNTIME.search(said)):
        return status
    lost = status in (FAILED, -signal.SIGABRT)
    who = f"lost {_named(said, hosts)}" if lost else f"{signal.Signals(-status).name} ended this process"
    again = f"to go on, start all processes again, this one by: {rerun}"
    print(f"{who} after {seconds:.0f} s; {again}", file=sys.stderr, flush=True)
    return LOST if lost else 128 - status


def _named(said: bytes, hosts: Sequence[str]) -> str:
    """The peers that the runtime named last, with their hosts."""
    numbers = sorted(
        {int(number) for some in UNHEALTHY.findall(said) for number in re.findall(rb"\d+", some)}
    )
    named = [f"process {n} ({hosts[n]})" if n < len(hosts) else f"process {n}" for n in numbers]
    return " and ".join(named) or "a peer that the runtime does not name"


def _hand_on(pipe: IO[bytes]) -> bytes:
    """Write what comes through the pipe to stderr, as it comes, to its end; gives the last of it."""
    said = b""
    while some := os.read(pipe.fileno(), KEPT):
        with suppress(OSError):
            os.write(sys.stderr.fileno(), some)
        said = (said + some)[-KEPT:]
    return said


def _hosts(ours: socket.socket) -> list[str]:
    """The hosts by process, as the child has said them; none where it did not come so far."""
    ours.setblocking(False)
    with suppress(OSError, ValueError):
        return json.loads(ours.recv(KEPT))
    return []


def tied() -> Callable[[Sequence[str]], None]:
    """In the child: end when the parent has gone; gives what says the hosts, by process, to the parent."""
    parent = socket.socket(fileno=int(os.environ[DOOR]))

    def wait() -> None:
        with suppress(OSError):  # a parent that has not read what was said resets the connection
            parent.recv(1)
        os._exit(128 + signal.SIGHUP)

    threading.Thread(target=wait, daemon=True).start()
    return lambda hosts: parent.sendall(json.dumps(list(hosts)).encode())
