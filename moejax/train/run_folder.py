"""The folder of a run: what made it, which stages are done, metrics and results; one process at a time.

config.json         the config, and the keys of what it worked on: data, base, code
stages/STAGE.json   one file for each stage that is done, with its key and payload
memo/               what fits of several rows share, by its content
experts/ routers/ checkpoints/ metrics.jsonl results.json
"""

import json
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moejax.experts.journal import HIDDEN
from moejax.experts.lock import locked
from moejax.parallel import hosts
from moejax.parallel.agree import agree
from moejax.train.code_version import code_version
from moejax.train.differences import differences
from moejax.train.metrics import Metrics
from moejax.types import UserError


@dataclass(frozen=True)
class RunFolder:
    """An open run folder."""

    folder: Path
    metrics: Metrics | None
    """None in a process that writes nothing: of several, process 0 writes for all."""

    @property
    def checkpoints(self) -> Path:
        """Where loops save their state."""
        return self.folder / "checkpoints"

    def expert(self, name: str) -> Path:
        """The folder of one expert."""
        return self.inside("experts", name)

    def router(self, method: str, target: str | None = None) -> Path:
        """The folder of one router; of one target task, where it was fitted for that alone."""
        return self.inside("routers", method if target is None else f"{method}@{target}")

    def inside(self, *parts: str) -> Path:
        """A path in the folder. Raises UserError for a name that leads out of it."""
        for part in parts:
            if not part or part in (".", "..") or set(part) & {"/", "\\", "\0"}:
                raise UserError(f"{part!r} cannot be the name of a file in {self.folder}: it leads elsewhere")
        return self.folder.joinpath(*parts)

    def share(self, name: str) -> Path:
        """The path of a file whose name tells its content; linked to another seed's of the same code, if it has it."""
        path = self.inside(name)
        hosts.write(lambda: self._link(path, name))
        return path

    def _link(self, path: Path, name: str) -> None:
        if not path.exists() and re.fullmatch(r"seed-\d+", self.folder.name):
            code = read_json(self.folder / "config.json")["keys"]["code"]
            for other in sorted(self.folder.parent.glob(f"seed-*/{name}")):
                if read_json(other.with_name("config.json"))["keys"]["code"] == code:
                    with suppress(OSError):  # a file system without links, or it has just been removed
                        os.link(other, path)
                        break

    def log(self, record: Mapping[str, Any]) -> None:
        """One line of metrics.jsonl."""
        if self.metrics is not None:
            self.metrics.write(record)

    def forget(self, step: int, **where: Any) -> None:
        """Drop the lines of metrics.jsonl that a loop wrote from `step` on."""
        if self.metrics is not None:
            self.metrics.cut(step, **where)

    def bind(self, **keys: str) -> None:
        """Record what the run works on, as `data=hash, base=fingerprint`.

        Raises UserError when the folder was made with another, or another process works on another, naming both.
        """
        agree(**keys)
        hosts.write(lambda: self._bind(keys))

    def _bind(self, keys: Mapping[str, str]) -> None:
        path = self.folder / "config.json"
        record = read_json(path)
        known = {name: value for name, value in record["keys"].items() if name in keys}
        if changed := differences(known, {name: keys[name] for name in known}):
            raise UserError(_refusal(self.folder, changed))
        write_json(path, {**record, "keys": {**record["keys"], **keys}})

    def done(self, stage: str, key: Any = None) -> dict[str, Any] | None:
        """What `mark` recorded for this stage, or None if it is still to do or was done under another key."""
        path = self.inside("stages", *f"{stage}.json".split("/"))

        def look() -> dict[str, Any] | None:
            if not path.exists():
                return None
            record = read_json(path)
            return record["payload"] if record["key"] == as_json(key) else None

        return hosts.first(look)

    def mark(self, stage: str, payload: Mapping[str, Any] | None = None, key: Any = None) -> None:
        """Record that a stage is done, with a plain payload. Call it when the stage's files are whole."""
        record = {"key": key, "payload": dict(payload or {})}
        path = self.inside("stages", *f"{stage}.json".split("/"))
        hosts.write(lambda: write_json(path, record))

    def finish(self, results: Mapping[str, Any]) -> Path:
        """Write results.json."""
        path = self.folder / "results.json"
        hosts.write(lambda: write_json(path, results))
        return path


@contextmanager
def open_run(
    folder: str | Path, config: Mapping[str, Any], free: Collection[str] = (), accept_code: bool = False
) -> Iterator[RunFolder]:
    """Make or reopen a run folder, for this process alone, or for all that run one command: process 0 holds it.

    free: dotted names of fields (or of records of fields) that may differ from what made the folder.
    Raises UserError when another config or other code made it, naming each field that differs; when it holds
    something else; when another process uses it; or when it cannot be written.
    """
    folder, held = Path(folder), ExitStack()
    metrics: list[Metrics] = []

    def claim() -> None:
        metrics.append(held.enter_context(_held(folder, as_json(config), free, accept_code)))

    with held:
        hosts.write(claim)
        yield RunFolder(folder, metrics[0] if metrics else None)


@contextmanager
def _held(
    folder: Path, config: dict[str, Any], free: Collection[str], accept_code: bool
) -> Iterator[Metrics]:
    """The folder made, locked, claimed and swept; its metrics."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the run folder {folder} cannot be made ({error.strerror}): give another --run"
        ) from error
    with locked(folder / "lock", folder, "wait for it, end it, or give another --run"):
        _claim(folder, config, free, accept_code)
        _sweep(folder)
        with Metrics(folder) as metrics:
            yield metrics


def _sweep(folder: Path) -> None:
    """Remove what a killed process left half written: parts of files, and hidden folders that were being filled.

    The hidden folder of a pool stays: it holds experts that were dropped, and mends itself.
    """
    for path in [path for path in folder.rglob("*") if path.suffix == ".part" or path.name.startswith(".")]:
        if HIDDEN in path.relative_to(folder).parts:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _claim(folder: Path, config: dict[str, Any], free: Collection[str], accept_code: bool) -> None:
    """Write config.json, or compare with the one that is there."""
    path, code = folder / "config.json", code_version()
    if not path.exists():
        strangers = sorted(other.name for other in folder.iterdir() if other.name != "lock")
        if strangers:
            raise UserError(
                f"{folder} is no run folder: it holds {strangers[0]} and no config.json; give another --run"
            )
        write_json(path, {"config": config, "keys": {"code": code}})
        return
    record = read_json(path)
    if not isinstance(record, dict) or not {"config", "keys"} <= record.keys():
        raise UserError(
            f"{folder} is no run folder: its config.json is of something else; give another --run"
        )
    changed = differences(record["config"], config, free)
    if not accept_code:
        changed += differences({"code": record["keys"]["code"]}, {"code": code})
    if changed:
        raise UserError(_refusal(folder, changed))
    write_json(path, {"config": config, "keys": {**record["keys"], "code": code}})


def _refusal(folder: Path, changed: list[str]) -> str:
    only_code = len(changed) == 1 and changed[0].startswith("code:")
    advice = "say --accept-code to go on, or" if only_code else "undo that, or"
    return f"{folder} was made by another run ({'; '.join(changed)}): {advice} give another --run"


def as_json(value: Any) -> Any:
    """The value as it comes back from JSON: tuples as lists, names as strings."""
    return json.loads(json.dumps(value, allow_nan=False))


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises UserError when it is broken."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}): restore it, or give another --run") from error


def write_json(path: Path, value: Any) -> Path:
    """Write a JSON file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path
