"""Checkpoints of one training loop, written by orbax in the background: the newest and the best whole ones are kept."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import jax

from moejax.parallel import hosts
from moejax.types import PyTree, UserError


class Checkpoints:
    """A folder of checkpoints: of the newest step and of the lowest loss; a half-written one is never read.

    A state is on the host when `save` returns, so that it may be donated; orbax writes it out meanwhile. Each process
    writes its own shards. Beside the state stands where the loop is: {"step", "rows", "mesh"}; `rows` is the place in
    the endless shuffled pass (grain's next_index), all that a stream needs to go on.
    Nothing is made before the first save: most loops end without one.
    """

    def __init__(self, folder: Path, rows: int = 0):
        """rows: how many rows of data a step takes, of all processes together."""
        self.folder, self.rows, self._manager = Path(folder).absolute(), rows, None

    @property
    def manager(self) -> Any:
        """Orbax's manager of the folder, made at the first use. Raises OSError when the folder cannot be made."""
        if self._manager is None:
            import orbax.checkpoint as ocp
            from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

            best = BestN(get_metric_fn=_loss, reverse=True, n=1, keep_checkpoints_without_metrics=False)
            options = ocp.CheckpointManagerOptions(
                best_fn=_loss, best_mode="min", preservation_policy=AnyPreservationPolicy([LatestN(1), best])
            )
            logging.getLogger("absl").addFilter(_not_of_orbax)
            with self._writing():
                self._manager = ocp.CheckpointManager(self.folder, options=options)
        return self._manager

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait until all is on the disk. Raises OSError when it is not, unless an error is under way that says more."""
        if self._manager is None:
            return
        try:
            with self._writing():
                self._manager.close()
        except OSError:
            with suppress(Exception):
                self._manager.close()  # the first call stops at the save that failed, its threads still there
            if error is None or isinstance(error, KeyboardInterrupt | SystemExit):
                raise

    @property
    def newest(self) -> int | None:
        """The newest saved step; None: there is none."""
        return self.manager.latest_step() if hosts.first(self.folder.exists) else None

    @property
    def best(self) -> int | None:
        """The saved step with the lowest loss; None: there is none."""
        return self.manager.best_step() if hosts.first(self.folder.exists) else None

    def restore(self, state: PyTree, step: int | None = None) -> PyTree:
        """The state of a step, None: the newest; `state` itself when nothing is saved.

        In the shapes of `state` and on its devices, whatever mesh it was saved from.
        Raises UserError when it cannot be read, or when steps took another number of rows than now.
        """
        if (step := self.newest if step is None else step) is None:
            return state
        import orbax.checkpoint as ocp

        shapes = jax.tree.map(ocp.tree.to_shape_dtype_struct, state)  # shardings too
        wanted = ocp.args.Composite(state=ocp.args.StandardRestore(shapes), at=ocp.args.JsonRestore())
        try:
            found = self.manager.restore(step, args=wanted)
        except Exception as error:  # damaged files, or another tree: many types of orbax and tensorstore
            raise UserError(
                f"the checkpoint {self.folder / str(step)} cannot be read ({_first_line(error)}): "
                f"delete {self.folder} and run again"
            ) from error
        if found.at["rows"] != step * self.rows:
            raise UserError(
                f"the checkpoint {self.folder / str(step)} was saved after {found.at['rows']} rows, but {step} steps "
                f"of {self.rows} rows are {step * self.rows}: take batches as before, or delete {self.folder}"
            )
        return found.state

    def save(self, step: int, state: PyTree, loss: float | None = None) -> None:
        """Save the state after `step` steps; nothing is done when that step is there already.

        loss: by which it may be the best, of the steps since the save before; None: it is kept while it is the newest.
        Raises OSError when it, or the one before it, cannot be written, and ValueError for a step before the newest.
        """
        import orbax.checkpoint as ocp

        if (newest := self.manager.latest_step()) == step:
            return
        if newest is not None and newest > step:
            raise ValueError(f"{self.folder} has step {newest}: step {step} is older")
        at = {"step": step, "rows": step * self.rows, "mesh": mesh_of(state)}
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), at=ocp.args.JsonSave(at))
        with self._writing():
            self.manager.save(step, args=args, metrics=None if loss is None else {"loss": loss})

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Everything that orbax raises, as an OSError: a full disk is a ValueError of tensorstore, among others."""
        try:
            yield
        except Exception as error:
            raise OSError(f"{self.folder} cannot be written ({_first_line(error)})") from error


def mesh_of(state: PyTree) -> dict[str, int]:
    """The axes of the mesh that a state lies on, and their sizes; empty: no mesh."""
    found = (getattr(leaf, "sharding", None) for leaf in jax.tree.leaves(state))
    return next((dict(one.mesh.shape) for one in found if isinstance(one, jax.NamedSharding)), {})


def _not_of_orbax(record: logging.LogRecord) -> bool:
    """Its threads log a traceback of what fails; the error is raised as well, and said in one sentence."""
    return "orbax" not in record.pathname


def _loss(metrics: PyTree) -> float:
    return metrics["loss"]


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0]
