"""Links in a folder of a stranger: followed within the folder, or within one repository of Hugging Face's cache."""

import os
from pathlib import Path

from moejax.types import UserError

REPOSITORIES = ("models--", "datasets--", "spaces--")


def home(folder: Path) -> Path:
    """Where links of a folder may lead: to itself, or, of a snapshot in a hub cache, to its repository.

    A cache keeps `models--OWNER--NAME/snapshots/REVISION/FILE` as a link to `models--OWNER--NAME/blobs/HASH`.
    """
    real = Path(os.path.realpath(folder))
    for parent in real.parents:
        if parent.name == "snapshots" and parent.parent.name.startswith(REPOSITORIES):
            return parent.parent
    return real


def check(file: Path) -> None:
    """Raise UserError when a file of a folder is a link that leaves it: it would read a file of somebody else."""
    if file.is_symlink() and not Path(os.path.realpath(file)).is_relative_to(home(file.parent)):
        raise UserError(
            f"{file} is a symbolic link that leaves the folder: put the file itself there, as cp -L does"
        )


def inside(file: Path) -> Path:
    """The file itself. Raises UserError as `check` does."""
    check(file)
    return file
