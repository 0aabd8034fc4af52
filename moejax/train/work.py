"""Work: where a fit keeps what it has done, so that a killed run goes on and ends in the same numbers."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from moejax.adapted import Adapted
from moejax.fetch import fetch
from moejax.loss import row_loss
from moejax.parallel import hosts
from moejax.parallel.spread import by_rows, everywhere
from moejax.train import tree_file
from moejax.train.ahead import ahead
from moejax.train.checkpoint import Checkpoints
from moejax.train.due import Due
from moejax.train.optimiser import Optimiser
from moejax.train.rows import Drawn, Stream, over, seed_of
from moejax.train.step import Losses, Objective, State, begin, check_parts, masters, mean, train_step
from moejax.train.uninterrupted import uninterrupted
from moejax.types import Batch, PRNGKey, PyTree, UserError

Log = Callable[[dict[str, Any]], None]
Forget = Callable[[int, str], None]


@dataclass(frozen=True)
class Work:
    """A folder for results and checkpoints, a seed, and a place for metrics."""

    folder: Path
    seed: int = 0
    log: Log = lambda record: None
    every: float = 60.0
    """Seconds between checkpoints of a loop."""
    progress: bool = False
    forget: Forget = lambda step, loop: None
    """Drops the metrics of a loop from a step on, when it is resumed there."""
    common: Path | None = None
    """A folder that all fits of a run share; None: `folder`."""

    def within(self, name: str) -> "Work":
        """The same, in a sub-folder."""
        return replace(self, folder=self.folder / name)

    def key(self, name: str) -> PRNGKey:
        """A random key that depends on the run's seed and this name alone."""
        return jax.random.key(seed_of(name, self.seed))

    def memo(self, name: str, make: Callable[[], PyTree]) -> PyTree:
        """`make()` as nested dicts of numpy arrays, computed once and kept in the folder."""
        path = self.folder / f"{name}.safetensors"
        if not hosts.first(path.exists):
            made = fetch(make())
            hosts.write(lambda: tree_file.save(path, made))
        return tree_file.load(path)

    def shared(self, name: str, make: Callable[[], PyTree]) -> PyTree:
        """`memo` for all fits of the run: the name must tell all that the result depends on."""
        return replace(self, folder=self.common or self.folder).memo(name, make)

    def train(
        self,
        name: str,
        adapted: Adapted,
        arrays: PyTree,
        trainable: PyTree,
        stream: Stream,
        optimiser: Optimiser,
        *,
        objective: Objective = mean,
        together: Sequence[str] = (),
        record: bool = False,
        random: bool = False,
        losses: Losses = row_loss,
    ) -> PyTree:
        """The trained sub-tree after `optimiser.steps` steps: memoised, checkpointed, resumed where it stopped.

        together: names of experts that train side by side, each with its own loss and optimiser state.
        Raises UserError naming the step (and, together, the expert) when the loss is not finite.
        """

        def make() -> PyTree:
            key, whole, rows = self.key(name), everywhere(arrays), by_rows()

            def given(number: int) -> tuple[Batch, PRNGKey | None]:
                return over(stream, number, rows), jax.random.fold_in(key, number) if random else None

            def step(state: State, batch: tuple[Batch, PRNGKey | None]) -> tuple[State, jax.Array]:
                return train_step(
                    state, whole, *batch, adapted=adapted, optimiser=optimiser, objective=objective,
                    together=bool(together), record=record, losses=losses,
                )  # fmt: skip

            size = stream.size if isinstance(stream, Drawn) else len(stream(0).tokens)
            check_parts(optimiser, size)
            start = everywhere(begin(masters(trainable), optimiser, bool(together)))
            return self.loop(name, step, start, given, optimiser.steps, together, size).trainable

        found = self.memo(name, make)
        hosts.write(lambda: shutil.rmtree(self._checkpoints(name), ignore_errors=True))
        return jax.tree.map(jax.numpy.asarray, found)

    def _checkpoints(self, name: str) -> Path:
        return self.folder / "checkpoints" / name

    def loop(
        self,
        name: str,
        step: Callable[[State, Any], tuple[State, jax.Array]],
        state: State,
        stream: Callable[[int], Any],
        steps: int,
        experts: Sequence[str] = (),
        rows: int = 0,
    ) -> State:
        """Run `step(state, stream(number)) -> (state, losses)` to `steps`, and read nothing of it but in reports.

        Saved every so often, when interrupted, and when `stream` fails; it is called ahead of the steps. The
        checkpoints, of the newest step and of the lowest loss between two saves, stay: who called removes them when
        the result is safe. rows: of data in a step.
        """
        losses: list[tuple[int, jax.Array]] = []
        with Checkpoints(self._checkpoints(name), rows) as checkpoints:
            state = checkpoints.restore(state)
            first = int(fetch(state.step))
            done, due = first, Due(self.every, first)
            self.forget(first, name)

            def keep() -> None:
                checkpoints.save(done, state, self._report(name, losses, experts))

            bar = tqdm(total=steps, initial=first, desc=name, unit="step", disable=not self.progress)
            with bar, ahead(stream, first, steps) as batches:
                try:
                    while done < steps:
                        try:
                            batch = next(batches)
                        except Exception:
                            keep()
                            raise
                        with uninterrupted():
                            state, loss = step(state, batch)
                            losses.append((done, loss))
                            done += 1
                        bar.update()
                        if due(done):
                            with uninterrupted():  # half a save, too, would be lost
                                keep()
                            due.saved(done)
                except (KeyboardInterrupt, SystemExit) as stop:
                    if isinstance(stop, hosts.Stopped) or hosts.count() == 1:
                        keep()  # several processes save at one step, or not at all
                    raise
            self._report(name, losses, experts)
        return state

    def _report(self, name: str, losses: list[tuple[int, jax.Array]], experts: Sequence[str]) -> float | None:
        """Log losses since the last report in one fetch, and give their mean; stop on one that is not finite."""
        means: list[float] = []
        for number, loss in fetch(losses):
            if not np.isfinite(loss).all():
                where = f", expert {experts[int(np.argmin(np.isfinite(loss)))]!r}" if np.ndim(loss) else ""
                raise UserError(
                    f"{name}: the loss is not finite at step {number}{where}; lower the learning rate "
                    "(the last good save is kept)"
                )
            own = loss[: len(experts)] if experts else loss  # without those that only pad to a mesh
            means.append(float(np.mean(own)))
            self.log({"loop": name, "step": number, "loss": means[-1]})
        losses.clear()
        return float(np.mean(means)) if means else None
