"""Metrics of a run: JSON lines always, TensorBoard too where tensorboardX is installed."""

import json
import math
import os
import shutil
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
        self.board = self._open_board()

    def _open_board(self) -> Any:
        if not find_spec("tensorboardX"):
            return None
        return import_module("tensorboardX").SummaryWriter(str(self.path.with_name("tensorboard")))

    def write(self, record: Mapping[str, Any]) -> None:
        """Append a record with the time. A number that is not finite is written as null.

        TensorBoard gets the numbers of a record that has a `step`, under its `stage` and `loop`.
        """
        plain = {name: None if _is_not_finite(value) else value for name, value in record.items()}
        plain = {"time": round(time.time(), 3), **plain}
        self.file.write(json.dumps(plain, ensure_ascii=False) + "\n")
        self.file.flush()
        self._show(plain)

    def _show(self, record: Mapping[str, Any]) -> None:
        if self.board is None or "step" not in record:
            return
        where = [record[part] for part in ("stage", "loop") if part in record] or ["run"]
        for name, value in record.items():
            if name not in ("step", "time") and isinstance(value, int | float):
                self.board.add_scalar(
                    "/".join([*where, name]), value, record["step"], walltime=record["time"]
                )

    def cut(self, step: int, **where: Any) -> None:
        """Drop the records of a loop from `step` on, for a run that is resumed there; `where` says which loop.

        TensorBoard's files are made again from what is kept.
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
        if self.board is not None:
            self.board.close()
            shutil.rmtree(self.path.with_name("tensorboard"), ignore_errors=True)
            self.board = self._open_board()
            for line in kept:
                self._show(json.loads(line))

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
