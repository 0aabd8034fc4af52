"""Compare the methods of a run in one table and a report. `python eval.py --config configs/NAME.py`."""

import shlex
import sys
from functools import partial
from pathlib import Path

from moejax.cli import main
from moejax.commands.processes import speaker
from moejax.config import FREE, Config, by_seed, plain
from moejax.evaluate import table
from moejax.evaluate.results import averaged
from moejax.parallel import hosts
from moejax.stages import compare, make, report
from moejax.stages.compiling import compiling
from moejax.stages.scene import make_scene
from moejax.train.run_folder import open_run, write_json


def evaluate(config: Config, command: str = "") -> None:
    """Answer the test rows with every method of the table, and print it; `report.html` shows what is behind it."""
    console = speaker()
    found, parts, path = [], [], Path()
    with compiling() as whole:
        for one in by_seed(config):
            with open_run(one.run, plain(one), FREE, one.accept_code) as run, compiling() as own:
                scene = make_scene(one, run, console)
                pool = make.experts(one, scene, run, console)
                if one.pool is not None:  # experts of one's own: no train.py came before
                    pool = make.contributions(one, scene, pool, run, console)
                    make.routers(one, scene, pool, run, console)
                found.append(compare.compare(one, scene, pool, run, console))
                run.finish(found[-1])
                parts.append(report.gather(one, scene, pool, run))
                path = report.write(run.folder, found[-1], parts[-1], command)
                run.log(own.record("eval.py"))
    if config.seeds:
        found.append(averaged(found))
        hosts.write(lambda: write_json(Path(config.run) / "results.json", found[-1]))
        note = f"Routing and learning curves are those of seed {config.seeds[0]}; each seed has a report of its own."
        path = report.write(Path(config.run), found[-1], parts[0], command, note)
    table.show(found[-1], console)
    console.print(f"report: {path}", markup=False, highlight=False, soft_wrap=True)
    console.print(whole.line(), highlight=False)


if __name__ == "__main__":
    command = shlex.join(["python", *sys.argv])
    sys.exit(main(partial(evaluate, command=command), script="eval.py", description=evaluate.__doc__ or ""))
