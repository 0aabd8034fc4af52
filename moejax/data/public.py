"""Public tasks from their sources: fetched at a fixed commit, checked, converted to the documented form."""

import csv
import hashlib
import importlib.resources
import json
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from moejax.data.cuts import Raws, finished
from moejax.data.folder import named, write_folder
from moejax.data.public_classification import CLASSIFICATION
from moejax.data.public_generation import GENERATION
from moejax.data.public_sources import Public
from moejax.data.tasks import SPLITS, Row, Task
from moejax.types import UserError

PUBLIC: dict[str, Public] = CLASSIFICATION | GENERATION
Read = Callable[[str], bytes]
HOST = "https://raw.githubusercontent.com"
MOST = 64 * 2**20  # bytes; no raw file has a tenth of this
FAULTS = (LookupError, ValueError, TypeError, EOFError, OSError, csv.Error, zlib.error)


def download(names: Sequence[str], folder: str | Path) -> tuple[Task, ...]:
    """Fetch these public tasks from their sources and add them to a folder in the documented form.

    Raises UserError for an unknown name, where there is no network, and where a file is not the one recorded.
    """
    found = {name: named(name, PUBLIC, "the table of public tasks") for name in names}
    tasks = tuple(convert(name, fetcher(public), recorded(name)) for name, public in found.items())
    write_folder(tasks, folder, {name: described(public) for name, public in found.items()})
    return tasks


def convert(name: str, read: Read, sha256: str | None = None) -> Task:
    """One public task from its raw files; `read(path)` gives a file's bytes, whose sha256 is checked."""
    public = PUBLIC[name]
    paths = public.form.paths
    with ThreadPoolExecutor(8) as pool:
        files = dict(zip(paths, pool.map(read, paths), strict=True))
    found = digest(files)
    if sha256 is not None and found != sha256:
        raise UserError(
            f"{name}: the raw files of {public.source.repository} at {public.source.commit[:12]} have sha256 "
            f"{found[:16]}, but {sha256[:16]} is recorded; they were changed or did not arrive whole"
        )
    try:
        raws = public.form.parse(files)
    except FAULTS as fault:
        raise UserError(f"{name}: the raw files do not have the form expected ({fault!r})") from None
    return task(name, public, finished(name, raws, public.exact))


def task(name: str, public: Public, raws: Raws) -> Task:
    """The task that finished rows make; without labels in the table, those that occur, sorted."""
    targets = sorted({row.target for split in SPLITS for row in raws[split]})
    labels = dict(zip(targets, targets, strict=True)) if public.labels is None else public.labels
    rows = {
        split: tuple(Row(row.input, public.instruction, row.target, row.choices) for row in raws[split])
        for split in SPLITS
    }
    return Task(
        name, public.kind, public.cluster, public.instruction, rows, tuple(labels), tuple(labels.values())
    )


def digest(files: dict[str, bytes]) -> str:
    """sha256 of the files, one after another in the order of their paths."""
    whole = hashlib.sha256()
    for path in sorted(files):
        whole.update(files[path])
    return whole.hexdigest()


def recorded(name: str) -> str:
    """The sha256 that the raw files of a public task must have."""
    text = importlib.resources.files("moejax.data").joinpath("public_sha256.json").read_text()
    return json.loads(text)[name]


def described(public: Public) -> dict[str, object]:
    """What tasks.json notes about the origin of a public task."""
    source = public.source
    return {
        "source_repo": f"https://github.com/{source.repository}", "source_commit": source.commit,
        "licence": source.licence, "licence_basis": "repository" if source.redistributed else "data",
    }  # fmt: skip


def fetcher(public: Public) -> Read:
    """What reads a file of the task's source over the network."""

    def read(path: str) -> bytes:
        source = public.source
        url = f"{HOST}/{source.repository}/{source.commit}/{urllib.parse.quote(path)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return answer.read(MOST)
        except OSError as fault:
            raise UserError(
                f"cannot fetch {url} ({fault}); without a network, name a folder of the tasks by --data-dir"
            ) from None

    return read
