"""Make experts and routers: text in, a run folder out. `python train.py --config configs/NAME.py`."""

import sys

from moejax.cli import main
from moejax.commands.processes import speaker
from moejax.config import FREE, Config, by_seed, plain
from moejax.stages import make
from moejax.stages.compiling import compiling
from moejax.stages.scene import make_scene
from moejax.train.run_folder import open_run


def train(config: Config) -> None:
    """Train experts apart (in one program), let contributors add what methods need, and fit every router."""
    console = speaker()
    with compiling() as whole:
        for one in by_seed(config):
            with open_run(one.run, plain(one), FREE, one.accept_code) as run, compiling() as own:
                console.print(f"run {one.run}, seed {one.seed}", markup=False)
                scene = make_scene(one, run, console)
                pool = make.experts(one, scene, run, console)
                pool = make.contributions(one, scene, pool, run, console)
                make.routers(one, scene, pool, run, console)
                run.log(own.record("train.py"))
    console.print(whole.line(), highlight=False)


if __name__ == "__main__":
    sys.exit(main(train, script="train.py", description=train.__doc__ or ""))
