"""A folder of tasks: every line that is wrong, what each task holds, and what may make its numbers mean little."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from moejax.commands.findings import MOST, Findings, plural
from moejax.data.folder import DESCRIPTION, read_folder
from moejax.data.tasks import SPLITS, Task
from moejax.models.base import Base
from moejax.types import UserError

FEW_TRAIN, FEW_TEST = 16, 100  # 16: what a few-shot method gets of a target
SHOWN = 6  # names that are printed of a list
LOPSIDED = 10  # times as many rows of the commonest label as of the rarest


def data(folder: Path, base: Base | None = None) -> Findings:
    """Faults by file and line; with a base, the longest text is told in its tokens."""
    faults: list[UserError] = []
    try:
        tasks = read_folder(folder, fault=faults.append)
    except UserError as error:
        tasks, faults = (), [error]
    found = Findings(f"data folder {folder}: {plural(len(tasks), 'task')}", most=MOST)
    found.faults += map(str, faults)
    warned: dict[str, list[str]] = {}
    for task in tasks:
        found.lines.append(_about(task, base))
        for warning in _warnings(task):
            warned.setdefault(warning, []).append(task.name)
    found.warnings += (f"{_some(names)}: {warning}" for warning, names in warned.items())
    known = {f"{task.name}{end}" for task in tasks for end in (".jsonl", ".jsonl.gz")}
    if tasks and not faults:
        for path in sorted(folder.glob("*.jsonl*")):
            if path.name not in known:
                found.warnings.append(f"{path.name} is not named in {DESCRIPTION}, so nothing reads it")
    return found


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if names[SHOWN:] else "")


def _about(task: Task, base: Base | None) -> str:
    rows = ", ".join(f"{split} {len(task.rows[split])}" for split in SPLITS)
    labels = sorted({label for split in SPLITS for row in task.rows[split] for label in task.options(row)})
    shown = " | ".join([*labels[:SHOWN], *(["…"] if labels[SHOWN:] else [])])
    answers = f"{plural(len(labels), 'label')} ({shown})" if labels else "free text"
    return f"{task.name}: rows {rows}; {answers}; longest text {_longest(task, base)}"


def _longest(task: Task, base: Base | None) -> str:
    texts = [row.input for split in SPLITS for row in task.rows[split]]
    if base is None or base.tokenizer is None:
        return plural(max(map(len, texts), default=0), "character")
    ids = base.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else []
    return plural(max(map(len, ids), default=0), "token")


def _warnings(task: Task) -> Iterator[str]:
    counts = {split: len(task.rows[split]) for split in SPLITS}
    for split in SPLITS:
        if not counts[split]:
            yield f"no {split} rows"
    if 0 < counts["train"] < FEW_TRAIN:
        yield f"{counts['train']} train rows are few: a few-shot method alone wants {FEW_TRAIN}"
    if 0 < counts["test"] < FEW_TEST:
        yield (
            f"by {counts['test']} test rows an accuracy is known to about ±{98 / counts['test'] ** 0.5:.0f} points"
        )
    for split in ("train", "test"):
        yield from _balance(task, split)
    if task.kind == "generation":
        yield "kind generation, which no encoder can answer: leave it out where the base is one"


def _balance(task: Task, split: str) -> Iterator[str]:
    """Labels of the task's own list that come too rarely; where rows bring their own choices, there is none."""
    seen = Counter(row.target for row in task.rows[split])
    if not seen or not task.choices:
        return
    if absent := [label for label in task.choices if label not in seen]:
        yield f"no {split} row has the label {absent[0]!r}" + (
            f" or {len(absent) - 1} more" if absent[1:] else ""
        )
    (common, most), (rare, least) = seen.most_common()[0], seen.most_common()[-1]
    if most >= LOPSIDED * least:
        yield f"{split} is lopsided: {most} rows of {common!r}, {least} of {rare!r}"
