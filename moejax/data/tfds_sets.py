"""Any data set that TFDS has prepared as array_record files, read as a task: `--data tfds:NAME`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moejax.data.prepared import MARK, read_prepared
from moejax.data.tasks import SPLITS, Row, Task
from moejax.types import UserError

NAMES = {"train": ("train",), "validation": ("validation", "val", "dev"), "test": ("test",)}


@dataclass(frozen=True)
class Fields:
    """How the features of a data set become a task."""

    input: tuple[str, ...] = ()
    """Features whose texts, one after another, are the input; empty: what the data set itself calls its input."""
    target: str = ""
    """Feature of the answer; empty: what the data set itself calls its target."""
    instruction: str = ""
    """What is asked of a text."""
    cluster: str = ""
    """Name of the group of related tasks."""
    label_text: dict[str, str] | None = None
    """Phrase of each label; None: the labels themselves."""
    splits: dict[str, str] | None = None
    """TFDS split of train, validation and test, `train[:80%]` for instance; None: those of the usual names."""


def read_tfds(name: str, fields: Fields = Fields(), data_dir: str | Path | None = None) -> tuple[Task, ...]:
    """The task of a prepared TFDS set, by its folder or its name (`name/config` below `data_dir`).

    A set that `prepared.prepare` wrote gives all its tasks and needs no fields. A class label makes a
    classification task, free text a generation task. No code of the data set is run, only its files are read.
    Raises UserError where there is no such set, it is not in array_record, or a field does not fit.
    """
    if (Path(name) / MARK).is_file():
        return read_prepared(name)
    builder = _builder(name, data_dir)
    where = f"TFDS set {builder.info.full_name}"
    texts, target = _features(builder.info, fields, where)
    if not fields.instruction.strip():
        raise UserError(f"{where}: fields.instruction is empty; say in a few words what is asked of a text")
    names: list[str] | None = getattr(builder.info.features[target], "names", None)
    rows = {split: _rows(builder, split, texts, target, names, fields, where) for split in SPLITS}
    train = {" ".join(row.input.split()) for row in rows["train"]}
    for number, row in enumerate(rows["test"]):
        if " ".join(row.input.split()) in train:
            raise UserError(f"{where}: test row {number} is also in train; choose other splits")
    labels = tuple(names or ())
    given = fields.label_text or {}
    phrases = tuple(given.get(label, label) for label in labels)
    if len(set(phrases)) < len(phrases):
        raise UserError(f"{where}: two labels have one label text; give each its own in fields.label_text")
    kind = "classification" if names else "generation"
    short = builder.info.full_name.rsplit("/", 1)[0].replace("/", "_")
    return (Task(short, kind, fields.cluster, fields.instruction, rows, labels, phrases),)


def _builder(name: str, data_dir: str | Path | None) -> Any:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import read_only_builder

    try:
        if (Path(name) / "dataset_info.json").is_file():
            return tfds.builder_from_directory(name)
        return read_only_builder.builder_from_files(name, data_dir=data_dir)
    except (tfds.core.DatasetNotFoundError, ValueError, LookupError, OSError) as fault:
        first = str(fault).split("\n")[0]
        raise UserError(f"no prepared TFDS set {name!r} ({first}); prepare it, or name its folder") from None


def _features(info: Any, fields: Fields, where: str) -> tuple[tuple[str, ...], str]:
    own: tuple[str, ...] = info.supervised_keys or ("", "")
    texts, target = fields.input or own[:1], fields.target or own[1]
    for one in (*texts, target):
        if one not in info.features:
            raise UserError(
                f"{where} has no feature {one!r}: fields.input and fields.target must be among "
                f"{', '.join(sorted(info.features))}"
            )
    return texts, target


def _rows(
    builder: Any, split: str, texts: tuple[str, ...], target: str, names: Any, fields: Fields, where: str
) -> tuple[Row, ...]:
    if fields.splits is None:
        own = next((name for name in NAMES[split] if name in builder.info.splits), None)
    else:
        own = fields.splits.get(split)
    if own is None:
        return ()
    try:
        found = builder.as_data_source(split=own)
    except (ValueError, NotImplementedError) as fault:
        first = str(fault).split("\n")[0]
        raise UserError(
            f"{where}: split {own!r} cannot be read ({first}); it must be in array_record"
        ) from None
    rows = []
    for number, raw in enumerate(found.__getitems__(list(range(len(found))))):
        text = " ".join(_text(raw[one]) for one in texts)
        answer = raw[target]
        if names is not None and int(answer) < 0:
            raise UserError(
                f"{where}: row {number} of {own!r} has no label; choose another split for {split}"
            )
        said = names[int(answer)] if names is not None else _text(answer)
        if not text.strip() or not said.strip():
            raise UserError(f"{where}: row {number} of {own!r} has an empty text")
        rows.append(Row(text, fields.instruction, said))
    return tuple(rows)


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
