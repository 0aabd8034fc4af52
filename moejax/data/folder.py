"""The documented form for anybody's own tasks: a folder of `<task>.jsonl[.gz]` files and one `tasks.json`."""

import difflib
import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from moejax.data.tasks import SPLITS, Row, Task
from moejax.types import UserError

DESCRIPTION = "tasks.json"
Fault = Callable[[UserError], None]


def stop(fault: UserError) -> None:
    """What readers do with a fault unless they are told to go on."""
    raise fault


def read_folder(
    folder: str | Path, names: Sequence[str] | None = None, fault: Fault = stop
) -> tuple[Task, ...]:
    """The named tasks of a folder, or all that its tasks.json describes, checked row by row.

    Raises UserError in one sentence that names the file (and line) for everything that is not as
    `docs/data.md` says. A `fault` that returns is called for each of them, and what is faulty is left out: a row,
    or a task.
    """
    folder = Path(folder)
    described = _described(folder / DESCRIPTION)
    known, found = [], []
    for name in described if names is None else names:
        try:
            _check_name(folder, name)
            known.append((name, named(name, described, str(folder))))
        except UserError as error:
            fault(error)
    for name, said in known:
        try:
            found.append(_task(folder, name, said, fault))
        except UserError as error:
            fault(error)
    return tuple(found)


def _check_name(folder: Path, name: str) -> None:
    if name in ("", ".", "..") or "/" in name or "\\" in name or name != Path(name).name:
        raise UserError(f"{folder / DESCRIPTION}: {name!r} is no name for a task; use one without / or ..")


def named(name: str, known: Mapping[str, Any], where: str) -> Any:
    """`known[name]`; raises UserError with a suggestion where there is none."""
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(sorted(known)[:8])}"
        raise UserError(f"{where} has no task {name!r}; {hint}")
    return known[name]


def _described(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path} does not exist: a folder of tasks needs one; docs/data.md shows its form")
    try:
        described = json.loads(path.read_bytes().decode("utf-8"))
    except ValueError as fault:
        raise UserError(f"{path} is not valid JSON in UTF-8: {fault}") from None
    if not isinstance(described, dict) or not all(isinstance(one, dict) for one in described.values()):
        raise UserError(f"{path}: expected an object with one object for each task, by name")
    return described


def _task(folder: Path, name: str, said: dict[str, Any], fault: Fault) -> Task:
    where = f"{folder / DESCRIPTION}: task {name}"
    kind = said.get("kind")
    if kind not in ("classification", "generation"):
        raise UserError(f"{where}: kind is {kind!r}; expected classification or generation")
    cluster, instruction = said.get("cluster", ""), said.get("instruction")
    if not isinstance(cluster, str) or not isinstance(instruction, str) or not instruction.strip():
        raise UserError(f"{where}: expected cluster and instruction to be texts, the instruction not empty")
    choices, skills = _texts(said, "choices", where), _texts(said, "skills", where)
    phrases = _phrases(said, choices, where)
    rows: dict[str, list[Row]] = {split: [] for split in SPLITS}
    lines: dict[str, dict[str, int]] = {split: {} for split in SPLITS}
    path = _file(folder, name)
    for number, line in _lines(path):
        at = f"{path}:{number}"
        try:
            split, made = _row(_parsed(line, at), name, kind, instruction, choices, at)
        except UserError as error:
            fault(error)
            continue
        rows[split].append(made)
        lines[split].setdefault(" ".join(made.input.split()), number)
    for text, number in lines["test"].items():
        if twin := lines["train"].get(text):
            at = f"{path}:{number}"
            fault(UserError(f"{at}: this test text is also in train (line {twin}); remove one of them"))
    whole = {split: tuple(rows[split]) for split in SPLITS}
    return Task(name, kind, cluster, instruction, whole, choices, phrases, skills)


def _texts(said: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    found = said.get(key, [])
    if not isinstance(found, list) or not all(isinstance(one, str) and one.strip() for one in found):
        raise UserError(f"{where}: expected {key} to be a list of texts, none of them empty")
    if len(set(found)) < len(found):
        raise UserError(f"{where}: {key} names one text twice; name each once")
    return tuple(found)


def _phrases(said: dict[str, Any], choices: tuple[str, ...], where: str) -> tuple[str, ...]:
    """The phrase of each label: its label_text, or the label itself where that is left out."""
    given = said.get("label_text", {})
    if not isinstance(given, dict) or not all(isinstance(one, str) and one.strip() for one in given.values()):
        raise UserError(f"{where}: expected label_text to give a text, not empty, for each label")
    for label in given:
        if label not in choices:
            raise UserError(f"{where}: label_text has {label!r}, which is not among its choices")
    phrases = tuple(given.get(label, label) for label in choices)
    for i, phrase in enumerate(phrases):
        if phrase in phrases[:i]:
            twin = choices[phrases.index(phrase)]
            raise UserError(f"{where}: labels {twin!r} and {choices[i]!r} have one label text, {phrase!r}")
    return phrases


def _file(folder: Path, name: str) -> Path:
    found = [path for end in (".jsonl", ".jsonl.gz") if (path := folder / (name + end)).is_file()]
    if len(found) != 1:
        fault = (
            "both of them are there; remove one" if found else f"it is missing, though {DESCRIPTION} names it"
        )
        raise UserError(f"{folder}: expected {name}.jsonl or {name}.jsonl.gz: {fault}")
    return found[0]


def _lines(path: Path) -> Iterable[tuple[int, str]]:
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    except (EOFError, zlib.error, gzip.BadGzipFile) as fault:
        raise UserError(f"{path} is truncated or no gzip file ({fault}); fetch it again") from None
    except UnicodeDecodeError as fault:
        raise UserError(f"{path} is not in UTF-8: {fault}") from None
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line


def _parsed(line: str, at: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as fault:
        raise UserError(f"{at}: not valid JSON: {fault}") from None


def _row(
    said: Any, name: str, kind: str, instruction: str, choices: tuple[str, ...], at: str
) -> tuple[str, Row]:
    if not isinstance(said, dict):
        raise UserError(f"{at}: expected an object with task, split, input and target")
    for key in ("task", "split", "input", "target"):
        if not isinstance(said.get(key), str):
            raise UserError(f"{at}: expected {key} to be a text, got {said.get(key)!r}")
        if not said[key].strip():
            raise UserError(f"{at}: {key} is empty")
    if said["task"] != name:
        raise UserError(f"{at}: task is {said['task']!r}, but the file is that of {name!r}")
    if said["split"] not in SPLITS:
        raise UserError(f"{at}: split is {said['split']!r}; expected train, validation or test")
    group = said.get("group", "")
    if not isinstance(group, str):
        raise UserError(f"{at}: expected group to be a text, got {group!r}")
    own = _texts(said, "choices", at) or None
    options = own or choices
    if kind == "classification" and not options:
        raise UserError(f"{at}: neither the row nor {DESCRIPTION} has choices for this classification task")
    if options and said["target"] not in options:
        raise UserError(f"{at}: unknown label {said['target']!r}; expected one of {', '.join(options[:8])}")
    return said["split"], Row(said["input"], instruction, said["target"], own, group)


def write_folder(
    tasks: Iterable[Task], folder: str | Path, notes: Mapping[str, Mapping[str, Any]] = {}
) -> None:
    """Put tasks into a folder, in the documented form, beside those that it has; tasks.json comes last.

    notes: more keys of tasks.json, by task. Every file is whole or not there.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    described = _described(folder / DESCRIPTION) if (folder / DESCRIPTION).exists() else {}
    for task in tasks:
        lines = [_said(task, split, row) for split in SPLITS for row in task.rows[split]]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        _put(folder / f"{task.name}.jsonl.gz", gzip.compress(text.encode(), 9, mtime=0))
        described[task.name] = description(task) | dict(notes.get(task.name, {}))
    _put(folder / DESCRIPTION, (json.dumps(described, indent=1, ensure_ascii=False) + "\n").encode())


def description(task: Task) -> dict[str, Any]:
    """What tasks.json says of a task."""
    return {
        "kind": task.kind, "cluster": task.cluster, "instruction": task.instruction,
        "choices": list(task.choices), "label_text": dict(zip(task.choices, task.label_text, strict=True)),
        "skills": list(task.skills),
    }  # fmt: skip


def _said(task: Task, split: str, row: Row) -> dict[str, Any]:
    said = {"task": task.name, "split": split, "input": row.input, "target": row.target}
    return (
        said | ({"choices": row.choices} if row.choices else {}) | ({"group": row.group} if row.group else {})
    )


def _put(path: Path, content: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    os.replace(part, path)
