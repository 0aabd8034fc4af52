"""The door to experts on disk: `read` and `write` a contributor's folder."""

from moejax.experts.read import read
from moejax.experts.write import write

__all__ = ["read", "write"]
