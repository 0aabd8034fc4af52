"""Metrics of a run: JSON lines always, TensorBoard too where tensorboardX is installed."""

import json
import math
import os
import time
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any


class Metrics:
    """Appends to FOLDER/metrics.jsonl, a line a record, at once; TensorBoard reads FOLDER/tensorboard."""

    def __init__(self, folder: Path):
        self.path = folder / "metrics.jsonl"
        _drop_half_a_line(self.path)
        self.file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115, closed on exit
        self.board = None
        if find_spec("tensorboardX"):
            self.board = import_module("tensorboardX").SummaryWriter(str(folder / "tensorboard"))

    def write(self, record: Mapping[str, Any]) -> None:
        """Append a record with the time. A number that is not finite is written as null.

        TensorBoard gets the numbers of a record that has a `step`, under the name of its `loop`.
        """
        plain = {name: None if _is_not_finite(value) else value for name, value in record.items()}
        self.file.write(json.dumps({"time": round(time.time(), 3), **plain}, ensure_ascii=False) + "\n")
        self.file.flush()
        if self.board is not None and "step" in record:
            for name, value in record.items():
                if name != "step" and isinstance(value, int | float):
                    self.board.add_scalar(f"{record.get('loop', 'run')}/{name}", value, record["step"])

    def cut(self, step: int, **where: Any) -> None:
        """Drop the records of a loop from `step` on, for a run that is resumed there; `where` says which loop.

        TensorBoard's files are left as they are: it shows such steps twice.
        """
        self.file.flush()
        before = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in before if not _is_after(json.loads(line), step, where)]
        if len(kept) == len(before):
            return
        part = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
        part.write_text("".join(kept), encoding="utf-8")
        self.file.close()
        os.replace(part, self.path)
        self.file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115, closed on exit

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()
        if self.board is not None:
            self.board.close()


def _is_after(record: Mapping[str, Any], step: int, where: Mapping[str, Any]) -> bool:
    """Whether a record is of that loop, and of that step or a later one."""
    return record.get("step", -1) >= step and all(record.get(name) == value for name, value in where.items())


def _is_not_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _drop_half_a_line(path: Path) -> None:
    """Cut what a killed process left of its last line, so that every line is whole."""
    if path.exists():
        with open(path, "rb+") as file:
            whole = file.read()
            keep = whole.rfind(b"\n") + 1
            if keep < len(whole):
                file.truncate(keep)
                os.fsync(file.fileno())
