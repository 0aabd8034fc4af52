"""`python killed.py BASE RUN [WHAT …]`: train.py and eval.py on a tiny base, in a process that may be cut off.

BASE is a folder, or `trained`: then the run trains a tiny decoder over lookup rules first.

WHAT are parts of paths, each of a kind of save: when the first file or folder of such a path is about to take its
place, all threads stand still and the run's folder is copied to RUN-cut/PART, as SIGKILL would have left it; `metrics`
is cut in the middle of a line. After the run each copy is gone on with, to its end. `limit=BYTES` instead lets no file
grow larger, as on a full disk.
"""

import os
import pathlib
import resource
import subprocess
import sys
from dataclasses import replace

from quick_programs import FLAGS

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["XLA_FLAGS"] = FLAGS

import jax

jax.config.update("jax_compilation_cache_dir", os.environ["PROGRAMS"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_disable_most_optimizations", True)

import eval as eval_script  # noqa: E402
import train as train_script  # noqa: E402
from moejax.cli import main  # noqa: E402
from moejax.config import TRAINED, BaseConfig, CheckpointConfig, Config, DataConfig, EvaluationConfig  # noqa: E402
from moejax.data.generated import SuiteConfig  # noqa: E402
from moejax.data.rules import RulesConfig  # noqa: E402
from moejax.train.experts import Recipe  # noqa: E402
from moejax.train.metrics import Metrics  # noqa: E402
from moejax.train.optimiser import Optimiser  # noqa: E402
from moejax.train.scratch import ScratchRecipe  # noqa: E402

METHODS = ("uniform", "phatgoose(steps=3, batch=4)", "token_gate(steps=3, batch=4)", "best_single")


def config(base: str, run: str) -> Config:
    """A run of seconds that saves its state after every step."""
    suite = SuiteConfig(
        kinds=("animal", "place", "food"), pairs=(("animal", "place"),), train=12, pair_train=18, validation=4, test=6,
        clauses=(2, 3),
    )  # fmt: skip
    made = Config(
        run=run,
        data=DataConfig(window=64, suite=suite),
        experts=Recipe(rank=2, layers=(1,), batch=4, optimiser=Optimiser(1e-2, 4)),
        methods=METHODS,
        evaluation=EvaluationConfig(batch=8, samples=50),
        checkpoint=CheckpointConfig(every=0.0),
    )
    if base != TRAINED:
        return replace(made, base=BaseConfig(base))
    return replace(
        made,
        base=BaseConfig(TRAINED, recipe=ScratchRecipe(16, 2, 2, 32, 8, Optimiser(3e-3, 4))),
        data=DataConfig(source="rules", window=16, rules=RulesConfig(0, 2, 1, 1, 6, 4, 12, 8, 4, 6)),
        experts=replace(made.experts, layers=None),
        methods=("uniform", "token_gate(steps=3, batch=4)"),
        evaluation=replace(made.evaluation, max_new=3),
    )


def place(run: str, part: str) -> pathlib.Path:
    """Where the copy of a run is that was cut off inside this kind of save."""
    return pathlib.Path(f"{run}-cut") / part.strip("/").replace("/", "-")


def copy(run: str, part: str) -> pathlib.Path:
    """Copy what is on disk now; this process, with what it writes in the background, stands still meanwhile."""
    to, me = place(run, part), os.getpid()
    to.parent.mkdir(exist_ok=True)
    steps = f"kill -STOP {me}; cp -a '{run}' '{to}'; kill -CONT {me}"
    subprocess.run(["sh", "-c", steps], check=True)
    return to


def cut_inside(parts: list[str], run: str) -> None:
    """Copy the run at its first save of each kind, between the writing and the taking of its place; empties `parts`."""

    def taking(move):
        def moving(source, target, *rest, **options):
            for part in [part for part in parts if part in str(target)]:
                parts.remove(part)
                copy(run, part)
            return move(source, target, *rest, **options)

        return moving

    for owner, name in ((os, "replace"), (os, "rename"), (pathlib.Path, "rename"), (pathlib.Path, "replace")):
        setattr(owner, name, taking(getattr(owner, name)))
    write = Metrics.write

    def half(self, record):
        if "metrics" in parts:
            parts.remove("metrics")
            with (copy(run, "metrics") / "metrics.jsonl").open("a") as file:
                file.write('{"time": 1, "loop"')
        write(self, record)

    Metrics.write = half


def both(settings: Config) -> None:
    """train.py, then eval.py."""
    train_script.train(settings)
    eval_script.evaluate(settings)


def all_ways(settings: Config, parts: list[str]) -> None:
    """The run, and what was cut off it gone on with."""
    open_ones = list(parts)
    cut_inside(open_ones, settings.run)
    both(settings)
    if open_ones:
        sys.exit(f"no save was met of {', '.join(open_ones)}")
    for part in parts:
        both(replace(settings, run=str(place(settings.run, part))))


if __name__ == "__main__":
    settings, what = config(*sys.argv[1:3]), sys.argv[3:]
    print("ready", flush=True)
    if what and what[0].startswith("limit="):
        size = int(what[0].removeprefix("limit="))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        jax.config.update("jax_enable_compilation_cache", False)  # it would only warn
        line = ["--config", str(pathlib.Path(__file__).parents[1] / "configs" / "quickstart.py")]
        sys.exit(main(lambda _: both(settings), line, "train.py"))
    all_ways(settings, what)
