"""Checkpoints of one training loop, written by orbax: the newest whole one is resumed from."""

from pathlib import Path
from types import TracebackType

import jax
import orbax.checkpoint as ocp

from moejax.types import PyTree


class Checkpoints:
    """A folder of checkpoints: the newest is kept; a half-written one is never read."""

    def __init__(self, folder: Path):
        options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
        self.manager = ocp.CheckpointManager(Path(folder).absolute(), options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.manager.close()

    def restore(self, state: PyTree) -> PyTree:
        """The newest saved state in the shapes of `state`, or `state` itself when there is none."""
        step = self.manager.latest_step()
        if step is None:
            return state
        shapes = jax.eval_shape(lambda tree: tree, state)
        return self.manager.restore(step, args=ocp.args.StandardRestore(shapes))

    def save(self, step: int, state: PyTree) -> None:
        """Save the state after `step` steps; nothing is done when that step is there already."""
        if self.manager.latest_step() != step:
            self.manager.save(step, args=ocp.args.StandardSave(state))
