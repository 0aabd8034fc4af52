"""One process at a time in a folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moejax.types import UserError


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file. Raises UserError when another process holds it; a killed one holds it no more."""
    with open(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            who = file.read().strip() or "unknown"
            raise UserError(
                f"{path.parent} is in use by process {who}: wait for it, end it, or give another --run"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)
