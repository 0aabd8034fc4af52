"""How raw rows of a public source become the splits of a task: normalised, without doubles, cut to size.

All choices follow a hash of the texts: the same everywhere, whatever the order of the source.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from moejax.data.tasks import SPLITS

SIZE = {"train": 2000, "validation": 500, "test": 500}
SHARE = {"train": 0.7, "validation": 0.15, "test": 0.15}
SEED = "moejax-data-1"


class Raw(NamedTuple):
    """A row as its source has it."""

    input: str
    target: str
    choices: tuple[str, ...] | None = None


Raws = Mapping[str, list[Raw]]


def plain(text: str) -> str:
    """NFC, no zero-width spaces, one blank between words."""
    return " ".join(unicodedata.normalize("NFC", text).replace("\u200b", "").split())


def fold(text: str) -> str:
    """What counts as the same text: its letters and digits, unless it is mostly symbols."""
    folded = re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()
    return folded if 2 * len(folded.replace(" ", "")) >= len("".join(text.split())) else text


def ordered(task: str, rows: Iterable[Raw]) -> list[Raw]:
    """Rows in the order of a hash of input and target."""
    return sorted(rows, key=lambda row: _hash(task, f"{row.input}\t{row.target}"))


def distinct(rows: Iterable[Raw]) -> list[Raw]:
    """The first row of each text; rows without text or target are left out."""
    found: dict[str, Raw] = {}
    for row in rows:
        key = fold(plain(row.input))
        if key and row.target:
            found.setdefault(key, row)
    return list(found.values())


def resplit(task: str, rows: Iterable[Raw]) -> Raws:
    """Splits of a source that has none: 15 % test, 15 % validation, 70 % train, none above `SIZE`."""
    rows, out, start = distinct(ordered(task, rows)), {}, 0
    for split in reversed(SPLITS):
        count = min(SIZE[split], int(len(rows) * SHARE[split]))
        out[split] = rows[start : start + count]
        start += count
    return out


def finished(task: str, raws: Raws, exact: bool = False) -> Raws:
    """Splits normalised, no text twice (test wins over validation, that over train), cut to `SIZE`.

    exact: texts are the same only if they are equal. Texts of several lines keep their line breaks.
    """
    seen, out = set(), {}
    for split in reversed(SPLITS):
        kept = []
        for row in ordered(task, [_normal(row) for row in raws.get(split, [])]):
            key = row.input if exact else fold(row.input)
            if row.input and row.target and key not in seen:
                seen.add(key)
                kept.append(row)
        out[split] = kept[: SIZE[split]]
    return out


def _normal(row: Raw) -> Raw:
    text = row.input.strip() if "\n" in row.input else plain(row.input)
    return Raw(text, row.target.strip(), row.choices)


def _hash(task: str, text: str) -> str:
    return hashlib.sha1(f"{SEED}|{task}|{text}".encode(), usedforsecurity=False).hexdigest()
