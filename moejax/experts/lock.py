"""One process at a time in a folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moejax.types import UserError


@contextmanager
def locked(path: Path, what: Path, advice: str) -> Iterator[None]:
    """Hold a lock file; a killed process holds it no more.

    Raises UserError when another process holds it: `what` is in use by that process, and the advice.
    """
    with open(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            who = file.read().strip() or "unknown"
            raise UserError(f"{what} is in use by process {who}: {advice}") from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)
