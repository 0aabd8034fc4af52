"""A part of a loop that signals do not cut in two."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

HELD = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back until the end of a step: its state is donated, half a step would lose it.

    Their handlers are put aside; a mask would not do, for a signal goes to any thread that does not mask it, and
    Python runs its handler in the main thread all the same. In other threads, where none runs, nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before: dict[signal.Signals, Any] = {}
    try:
        for number in HELD:
            if signal.getsignal(number) is not None:  # else set by what is not Python, and cannot be put back
                before[number] = signal.signal(number, lambda got, frame: came.append(got))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for number in came:
        signal.raise_signal(number)
