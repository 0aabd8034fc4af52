"""Work: where a fit keeps what it has done, so that a killed run goes on and ends in the same numbers."""

import shutil
import time
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
from moejax.train import tree_file
from moejax.train.ahead import ahead
from moejax.train.checkpoint import Checkpoints
from moejax.train.optimiser import Optimiser
from moejax.train.rows import Stream, seed_of
from moejax.train.step import Losses, Objective, State, begin, mean, train_step
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
        if not path.exists():
            tree_file.save(path, fetch(make()))
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
            key = self.key(name)

            def given(number: int) -> tuple[Batch, PRNGKey | None]:
                return stream(number), jax.random.fold_in(key, number) if random else None

            def step(state: State, batch: tuple[Batch, PRNGKey | None]) -> tuple[State, jax.Array]:
                return train_step(
                    state, arrays, *batch, adapted=adapted, optimiser=optimiser, objective=objective,
                    together=bool(together), record=record, losses=losses,
                )  # fmt: skip

            copied = jax.tree.map(jax.numpy.array, trainable)  # the state is donated, what it began as is not
            start = begin(copied, optimiser, bool(together))
            return self.loop(name, step, start, given, optimiser.steps, together).trainable

        found = self.memo(name, make)
        shutil.rmtree(self._checkpoints(name), ignore_errors=True)
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
    ) -> State:
        """Run `step(state, stream(number)) -> (state, losses)` to `steps`, and read nothing of it but in reports.

        Saved every so often, when interrupted, and when `stream` fails; it is called ahead of the steps. The
        checkpoints stay: who called removes them when the result is safe.
        """
        losses: list[tuple[int, jax.Array]] = []
        with Checkpoints(self._checkpoints(name)) as checkpoints:
            state = checkpoints.restore(state)
            first, saved = int(fetch(state.step)), time.monotonic()
            done = first
            self.forget(first, name)

            def keep() -> None:
                self._report(name, losses, experts)
                checkpoints.save(done, state)

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
                        if time.monotonic() - saved > self.every:
                            keep()
                            saved = time.monotonic()
                except (KeyboardInterrupt, SystemExit):
                    keep()
                    raise
            self._report(name, losses, experts)
        return state

    def _report(self, name: str, losses: list[tuple[int, jax.Array]], experts: Sequence[str]) -> None:
        """Log losses since the last report in one fetch; stop on one that is not finite."""
        for number, loss in fetch(losses):
            if not np.isfinite(loss).all():
                where = f", expert {experts[int(np.argmin(np.isfinite(loss)))]!r}" if np.ndim(loss) else ""
                raise UserError(
                    f"{name}: the loss is not finite at step {number}{where}; lower the learning rate "
                    "(the last good save is kept)"
                )
            own = loss[: len(experts)] if experts else loss  # without those that only pad to a mesh
            self.log({"loop": name, "step": number, "loss": float(np.mean(own))})
        losses.clear()
