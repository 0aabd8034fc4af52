"""What compiling cost a command: the programs that XLA made, those that were read from the cache, and the seconds."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import jax

PROGRAM = "/jax/core/compile/backend_compile_duration"  # of every program, whether compiled or read
READ = "/jax/compilation_cache/cache_retrieval_time_sec"  # of one that was in the cache


@dataclass
class Compiling:
    """compiled: programs that XLA made, in `seconds`; read: those from the cache on disk, in `read_seconds`."""

    compiled: int = 0
    seconds: float = 0.0
    read: int = 0
    read_seconds: float = 0.0

    def line(self) -> str:
        """What it came to, for the user."""
        return (
            f"programs: {self.compiled} compiled in {self.seconds:.1f} s, "
            f"{self.read} read from the cache in {self.read_seconds:.1f} s"
        )

    def record(self, command: str) -> dict[str, Any]:
        """The same as a line of metrics.jsonl."""
        return {"stage": "compiling", "command": command, **asdict(self)}


@contextmanager
def compiling() -> Iterator[Compiling]:
    """Counts what this process compiles within, as JAX reports it; tracing is not in the seconds."""
    found = Compiling()

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == PROGRAM:
            found.compiled += 1
            found.seconds += duration_secs
        elif event == READ:  # comes within the program's own time
            found.compiled -= 1
            found.seconds -= duration_secs
            found.read += 1
            found.read_seconds += duration_secs

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
