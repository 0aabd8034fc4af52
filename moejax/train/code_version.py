"""Which code this is: a hash of moejax's own sources, and the commit where they are under git."""

import hashlib
import subprocess
from functools import cache
from pathlib import Path


@cache
def code_version() -> str:
    """First 12 digits of a sha256 over the names and contents of the package's modules."""
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


@cache
def commit(root: Path = Path(__file__).parents[2]) -> str | None:
    """The commit of these sources, "+changes" behind it where they differ; None where git does not hold them."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=True, timeout=20
        ).stdout

    try:
        git(
            "ls-files", "--error-unmatch", "moejax/__init__.py"
        )  # a repository around an installed copy is not ours
        return git("rev-parse", "HEAD").strip() + (
            "+changes" if git("status", "--porcelain", "moejax") else ""
        )
    except (OSError, subprocess.SubprocessError):
        return None
