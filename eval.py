"""Compare the methods of a run in one table. `python eval.py --config configs/NAME.py`."""

import sys
from pathlib import Path

from rich.console import Console

from moejax import stages
from moejax.cli import main
from moejax.config import FREE, Config, by_seed, plain
from moejax.evaluate import table
from moejax.evaluate.results import averaged
from moejax.scene import make_scene
from moejax.train.run_folder import open_run, write_json


def evaluate(config: Config) -> None:
    """Answer the test rows with every method of the table, and print it; `results.json` has every number."""
    console = Console()
    found = []
    for one in by_seed(config):
        with open_run(one.run, plain(one), FREE, one.accept_code) as run:
            scene = make_scene(one, run, console)
            pool = stages.make_experts(one, scene, run, console)
            found.append(stages.compare(one, scene, pool, run, console))
            run.finish(found[-1])
    if config.seeds:
        found.append(averaged(found))
        write_json(Path(config.run) / "results.json", found[-1])
    table.show(found[-1], console)


if __name__ == "__main__":
    sys.exit(main(evaluate, script="eval.py", description=evaluate.__doc__ or ""))
