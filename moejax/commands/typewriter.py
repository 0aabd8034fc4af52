"""A text on the screen as it grows: nothing is shown that may still turn out to be no part of it."""

from collections.abc import Callable
from typing import Any


class Typewriter:
    """Writes what is new of one answer; holds back half a letter, and what may be the beginning of a stop string."""

    def __init__(self, write: Callable[[str], Any], stops: tuple[str, ...]):
        self.write, self.stops, self.shown = write, stops, ""

    def __call__(self, number: int, text: str, last: bool) -> None:
        """Show the text so far; `last`: there will be no more of it."""
        sure = text if last else text[: len(text) - self._unsure(text)]
        if sure.startswith(self.shown):
            self.write(sure[len(self.shown) :])
        elif last:  # a tokenizer that changes what it said before: the whole once more
            self.write(f"\n{sure}")
        else:
            return
        self.shown = sure
        if last:
            self.write("\n")

    def _unsure(self, text: str) -> int:
        """How many letters at the end may still change."""
        halves = len(text) - len(text.rstrip("\ufffd"))
        begun = (n for stop in self.stops for n in range(1, len(stop)) if text.endswith(stop[:n]))
        return max(halves, max(begun, default=0))
