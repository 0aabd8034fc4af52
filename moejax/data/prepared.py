"""Tasks as a TFDS data set of array_record files: written once for each content, read by row.

A prepared set is one folder that TFDS opens (`tfds.builder_from_directory`), with `moejax_tasks.json` beside
its files: what the tasks are, and the hash of their content.
"""

import contextlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from moejax.data.folder import description
from moejax.data.tasks import SPLITS, Row, Task, data_hash
from moejax.parallel import hosts
from moejax.parallel.agree import agree
from moejax.types import UserError

MARK = "moejax_tasks.json"


def prepare(
    tasks: Sequence[Task], folder: str | Path, family: Literal["generated", "folder"] = "folder"
) -> Path:
    """Write tasks below `folder`, once for each content; gives the folder of the prepared set.

    It appears whole or not at all, also when several commands prepare the same tasks. Of several processes of one,
    process 0 writes it. Raises UserError naming the first task that is not the same in all of them.
    """
    content = data_hash(tasks)
    final = Path(folder) / f"{family}-{content[:16]}"
    agree(data={task.name: data_hash([task])[:16] for task in tasks})
    hosts.write(lambda: _prepare(tasks, final, family, content))
    return final


def _prepare(tasks: Sequence[Task], final: Path, family: str, content: str) -> None:
    if (final / MARK).is_file():
        return
    final.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=final.parent))
    try:
        made = _written(tuple(tasks), work, family)
        said = {"hash": content, "tasks": {task.name: description(task) for task in tasks}}
        (made / MARK).write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        with contextlib.suppress(OSError):  # another process was first: its set has the same content
            os.replace(made, final)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if not (final / MARK).is_file():
        raise UserError(f"{final} exists but is no prepared set: remove it, then prepare the tasks again")


def _written(tasks: tuple[Task, ...], folder: Path, family: str) -> Path:
    from moejax.data import tfds_builders

    kinds = {"generated": tfds_builders.GeneratedSuite, "folder": tfds_builders.FolderTasks}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        builder = kinds[family](tasks=tasks, data_dir=folder)
        try:
            builder.download_and_prepare()
        except Exception as fault:  # its writers are C++: a full disk is a RuntimeError of theirs
            raise OSError(f"{folder} cannot be written ({str(fault).splitlines()[0]})") from fault
    return Path(builder.data_dir)


def read_prepared(folder: str | Path) -> tuple[Task, ...]:
    """The tasks of a prepared set; raises UserError if it is none, or not what was written."""
    folder = Path(folder)
    try:
        said = json.loads((folder / MARK).read_text(encoding="utf-8"))
        rows = {split: _by_task(folder, split) for split in SPLITS}
        tasks = tuple(_task(name, one, rows) for name, one in said["tasks"].items())
    except FileNotFoundError as fault:
        raise UserError(f"{folder} is no prepared set of tasks ({fault}); prepare the tasks again") from None
    except (LookupError, TypeError, ValueError, RuntimeError) as fault:
        raise UserError(f"{folder} is a damaged set of tasks ({fault}); prepare the tasks again") from None
    if data_hash(tasks) != said["hash"]:
        raise UserError(f"{folder}: the rows are not those that were written; prepare the tasks again")
    return tasks


def source(folder: str | Path, split: str) -> Any:
    """Random access to the rows of a split, for grain: `grain.MapDataset.source(source(folder, "train"))`."""
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder_from_directory(folder)
    return builder.as_data_source(split=split)


def _by_task(folder: Path, split: str) -> dict[str, list[Row]]:
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder_from_directory(folder)
    found: dict[str, dict[int, Row]] = {}
    if split in builder.info.splits:
        rows = builder.as_data_source(split=split)
        for raw in rows.__getitems__(list(range(len(rows)))):
            found.setdefault(raw["task"].decode(), {})[int(raw["row"])] = Row(
                raw["input"].decode(), raw["instruction"].decode(), raw["target"].decode(),
                tuple(choice.decode() for choice in raw["choices"]) or None, raw["group"].decode(),
            )  # fmt: skip
    return {name: [row for _, row in sorted(ones.items())] for name, ones in found.items()}


def _task(name: str, said: Mapping[str, Any], rows: Mapping[str, Mapping[str, list[Row]]]) -> Task:
    own = {split: tuple(rows[split].get(name, ())) for split in SPLITS}
    phrases = tuple(said["label_text"][label] for label in said["choices"])
    return Task(
        name, said["kind"], said["cluster"], said["instruction"], own,
        tuple(said["choices"]), phrases, tuple(said["skills"]),
    )  # fmt: skip
