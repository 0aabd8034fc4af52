"""A base that reads and writes letters, and experts of it, as folders; and what they make of each other."""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import own
import tiny_folder

from moejax.commands.routed import Ready, Routed, ready
from moejax.models.weights import load

NAMES = ("ant", "bee", "cat")


def folders(root: Path) -> Path:
    """`base`, and `experts` of ranks 1 to 3 in a folder."""
    base = load(tiny_folder.speaker(root / "base"))
    for rank, name in enumerate(NAMES, 1):
        own.expert(base, root / "experts" / name, rank=rank)
    return root


@cache
def shared() -> Path:
    """The same for all tests of a process, which leave it as it is."""
    return folders(Path(mkdtemp(prefix="moejax-shell-")))


@cache
def made(method: str) -> Ready:
    """A method over these experts."""
    experts = "" if method == "base" else str(shared() / "experts")
    return ready(Routed(base=str(shared() / "base"), experts=experts, method=method))
