"""When a loop saves: every so many seconds by the clock of process 0, at a step that all processes hear of."""

import time
from dataclasses import dataclass, field

from moejax.parallel import hosts

LOOK = 1.0  # seconds from one look of several processes to the next: a signal is heeded then


@dataclass
class Due:
    """every: seconds between saves; first: the number of steps that were done when the loop began.

    Raises hosts.Stopped where a signal has come to one of several processes.
    """

    every: float
    first: int
    began: float = field(default_factory=lambda: time.monotonic())
    look: int = 0
    """Several processes look at the clock together, when so many steps are done; a single one at every step."""

    def __call__(self, done: int) -> bool:
        """Whether to save now that `done` steps are done."""
        if done < self.look:
            return False
        due, self.look = hosts.first(lambda: self._now(done))
        return due

    def saved(self, done: int) -> None:
        """Begin anew: the state after `done` steps is safe."""
        self.began, self.first = time.monotonic(), done

    def _now(self, done: int) -> tuple[bool, int]:
        if hosts.count() == 1:
            return time.monotonic() - self.began > self.every, 0
        spent = time.monotonic() - self.began
        due = spent > self.every
        left = min(LOOK, self.every if due else self.every - spent)
        return due, done + max(1, int(left * (done - self.first) / max(spent, 1e-9)))
