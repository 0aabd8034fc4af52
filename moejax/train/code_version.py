"""Which code this is: a hash of moejax's own sources, whether or not they are committed."""

import hashlib
from functools import cache
from pathlib import Path


@cache
def code_version() -> str:
    """First 12 digits of a sha256 over the names and contents of the package's modules."""
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
