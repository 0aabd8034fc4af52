"""`python killed.py BASE RUN [SAVE]`: train.py and eval.py on a tiny base, in a process that may die inside a save.

BASE is a folder, or `trained`: then the run trains a tiny decoder over lookup rules first.

SAVE is a part of a path: the first file or folder of such a path that is about to take its place never does, the
process kills itself there as SIGKILL does. `metrics` dies in the middle of a line. `limit=BYTES` lets no file grow
larger, as on a full disk.
"""

import os
import pathlib
import resource
import signal
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


def die_inside(save: str) -> None:
    """Kill this process at the first save of this kind, between the writing and the taking of its place."""

    def kill(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    if save == "metrics":

        def half(self, record):
            self.file.write('{"time": 1, "loop"')
            self.file.flush()
            kill()

        Metrics.write = half
        return
    for owner, name in ((os, "replace"), (os, "rename"), (pathlib.Path, "rename"), (pathlib.Path, "replace")):
        setattr(owner, name, _dying(getattr(owner, name), save, kill))


def _dying(move, save: str, kill):
    def moving(source, target, *rest, **options):
        if save in str(target):
            kill()
        return move(source, target, *rest, **options)

    return moving


def both(settings: Config) -> None:
    """train.py, then eval.py."""
    train_script.train(settings)
    eval_script.evaluate(settings)


if __name__ == "__main__":
    settings, save = config(*sys.argv[1:3]), "".join(sys.argv[3:])
    print("ready", flush=True)
    if save.startswith("limit="):
        size = int(save.removeprefix("limit="))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        jax.config.update("jax_enable_compilation_cache", False)  # it would only warn
        line = ["--config", str(pathlib.Path(__file__).parents[1] / "configs" / "quickstart.py")]
        sys.exit(main(lambda _: both(settings), line, "train.py"))
    if save:
        die_inside(save)
    both(settings)
