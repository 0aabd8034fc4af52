"""Where a stage of a run keeps what it has done so far."""

from typing import Any

from moejax.config import Config
from moejax.train.run_folder import RunFolder
from moejax.train.work import Work


def work_of(config: Config, run: RunFolder, *name: str, progress: bool = False) -> Work:
    """The folder of a stage's unfinished work; its metrics say which stage they are of."""
    folder, stage = run.inside("work", *name), "/".join(name)

    def log(record: dict[str, Any]) -> None:
        run.log({"stage": stage, **record})

    def forget(step: int, loop: str) -> None:
        run.forget(step, stage=stage, loop=loop)

    return Work(folder, config.seed, log, config.checkpoint.every, progress, forget, run.inside("memo"))
