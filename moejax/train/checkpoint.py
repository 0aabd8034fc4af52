"""Checkpoints of one training loop, written by orbax: the newest whole one is resumed from."""

from pathlib import Path
from types import TracebackType
from typing import Any

import jax

from moejax.types import PyTree


class Checkpoints:
    """A folder of checkpoints: the newest is kept; a half-written one is never read.

    Nothing is made before the first save: most loops end without one.
    """

    def __init__(self, folder: Path):
        self.folder, self._manager = Path(folder).absolute(), None

    @property
    def manager(self) -> Any:
        """Orbax's manager of the folder, made at the first use."""
        if self._manager is None:
            import orbax.checkpoint as ocp

            options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
            self._manager = ocp.CheckpointManager(self.folder, options=options)
        return self._manager

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._manager is not None:
            self._manager.close()

    def restore(self, state: PyTree) -> PyTree:
        """The newest saved state in the shapes of `state`, or `state` itself when there is none."""
        if not self.folder.exists() or (step := self.manager.latest_step()) is None:
            return state
        import orbax.checkpoint as ocp

        shapes = jax.eval_shape(lambda tree: tree, state)
        return self.manager.restore(step, args=ocp.args.StandardRestore(shapes))

    def save(self, step: int, state: PyTree) -> None:
        """Save the state after `step` steps; nothing is done when that step is there already.

        Raises OSError when it cannot be written.
        """
        import orbax.checkpoint as ocp

        if self.manager.latest_step() == step:
            return
        try:
            self.manager.save(step, args=ocp.args.StandardSave(state))
        except Exception as error:  # a full disk is a ValueError of tensorstore, among others
            first = str(error).split("\n")[0]
            raise OSError(f"{self.folder} cannot be written ({first})") from error
