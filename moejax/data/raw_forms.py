"""What a public task's raw form is: the files that it wants, and what makes rows by split of their bytes.

A form touches neither disk nor network.
"""

import csv
import gzip
import io
from collections.abc import Callable, Mapping
from typing import NamedTuple

from moejax.data.cuts import Raw, Raws, ordered

Files = Mapping[str, bytes]
VAL = {"train": "train", "validation": "val", "test": "test"}
DEV = {"train": "train", "validation": "dev", "test": "test"}


class Form(NamedTuple):
    """Paths within the source, and what makes rows by split of their contents."""

    paths: tuple[str, ...]
    parse: Callable[[Files], Raws]


def decoded(files: Files, path: str, encoding: str = "utf-8") -> str:
    """A file's text, unpacked if it ends in .gz; what cannot be decoded is replaced."""
    raw = gzip.decompress(files[path]) if path.endswith(".gz") else files[path]
    return raw.decode(encoding, errors="replace")


def lines_of(files: Files, path: str, encoding: str = "utf-8") -> list[str]:
    """A file's lines."""
    return decoded(files, path, encoding).split("\n")


def table_of(files: Files, path: str, delimiter: str = ",", quoted: bool = True) -> list[dict[str, str]]:
    """Rows of a file with a header line."""
    quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    return list(csv.DictReader(io.StringIO(decoded(files, path)), delimiter=delimiter, quoting=quoting))


def by_split(paths: Mapping[str, str], rows: Callable[[Files, str], list[Raw]]) -> Form:
    """A form with one file a split."""
    return Form(
        tuple(paths.values()), lambda files: {split: rows(files, path) for split, path in paths.items()}
    )


def held_back(task: str, train: list[Raw], test: list[Raw]) -> Raws:
    """A source without validation rows: 500 training rows become them."""
    train = ordered(task, train)
    return {"train": train[500:], "validation": train[:500], "test": test}
