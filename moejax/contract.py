"""The contract: what every method is, whatever it routes and wherever it looks.

A method turns a pool of experts, and only the data that it is granted, into a router:

    contribute -> extras of each expert        at the contributors, who see their own data only (optional)
    fit        -> Fitted                        ordinary Python: several jits, resumable (optional)
    adapt      -> Adapted                       static: which places, by which rules
    arrays     -> {params, bank, router, …}     everything that is an array; derived arrays are made here
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Float

from moejax.adapted import Adapted
from moejax.experts.bank import Bank, on_device, size
from moejax.experts.merge import Mode
from moejax.experts.pool import Pool
from moejax.models.base import Base
from moejax.taxonomy import Axes, Card
from moejax.types import Batch, NotApplicable, PyTree, Weights


@runtime_checkable
class Rows(Protocol):
    """Rows that a grant hands out: arrays only, no names of tasks, never a test row."""

    def __len__(self) -> int: ...

    def take(self, index: np.ndarray) -> Batch:
        """The batch of these rows, in this order, in numpy arrays."""
        ...

    def texts(self, index: np.ndarray) -> list[str]:
        """What the requests of these rows say, in words; never the answers."""
        ...


class Split(NamedTuple):
    """The two splits of a grant."""

    train: Rows
    validation: Rows


@runtime_checkable
class Grants(Protocol):
    """What a fit may read; anything that `needs(config)` does not list raises AccessDenied."""

    def expert_labels(self, name: str) -> Split: ...

    def expert_inputs(self, name: str) -> Split: ...

    def target_labels(self) -> Split: ...

    def target_inputs(self) -> Split: ...

    def general(self) -> Split: ...

    def test_labels(self) -> Rows: ...


@runtime_checkable
class Pair(Protocol):
    """A route that chooses between a strong and a weak member for each request, the strong one where it is wanted.

    Where `wants` is at least knobs["threshold"] of the router; a frozen record. The router's "model" has
    the numbers of both members, `strong` and `weak` (as in `train.outcomes`), and their `price` [2].
    """

    def __call__(self, arrays: PyTree, batch: Batch) -> Weights: ...

    def wants(self, arrays: PyTree, batch: Batch) -> Float[Array, "b"]:
        """How much each request wants the strong member."""
        ...


class Fitted(NamedTuple):
    """A router: leaves {"places": {path: leaves [s, …]}, "knobs": {name: array}}, and what a fit may replace.

    names: the experts, in the order that the leaves have. bank, patch: what replaces the pool's bank, and leaves
    of the base by path. trained: how many numbers were learned, by contributors or here. chosen: what the fit chose
    by trying, and on which rows: {"lambda": "validation rows of the experts' tasks"}.
    """

    router: PyTree
    names: tuple[str, ...]
    bank: Bank | None = None
    patch: Mapping[str, Any] = {}
    trained: int = 0
    chosen: Mapping[str, str] = {}


def on_disk(extra: str, base: Base) -> str:
    """The name of an extra in an expert's folder: the `mean` of texts is one encoder's, `mean@NAME`."""
    return f"{extra}@{base.embedder.name}" if extra == "mean" and base.embedder else extra


def count(tree: PyTree) -> int:
    """How many numbers a tree holds."""
    return sum(int(np.size(leaf)) for leaf in jax.tree.leaves(tree))


def count_alive(tree: PyTree, bank: Bank) -> int:
    """How many numbers belong to experts, of a tree all of whose leaves have an axis of expert slots.

    Free slots, which only leave room or pad to a mesh, are nobody's.
    """
    return count(tree) // size(bank) * int(np.sum(np.asarray(bank.alive)))


Extras = dict[str, Any]  # of one expert: extra -> path -> [s, …], or one array, or the list of its samples


def nothing_fitted(config: Any, base: Base, pool: Pool, grants: Grants, work: Any) -> Fitted:
    """The router of a method that learns nothing."""
    return Fitted({"places": {}, "knobs": {}}, pool.names)


def plain_arrays(config: Any, base: Base, pool: Pool, fitted: Fitted) -> dict[str, Any]:
    """The base's parameters and label vectors, the pool's bank (or the router's own), the router as fitted."""
    return {
        "params": base.params,
        "bank": on_device(pool.bank if fitted.bank is None else fitted.bank),
        "router": fitted.router,
        "labels": base.labels,
    }


def routable(pool: Pool) -> Pool:
    """The pool. Raises NotApplicable where experts changed what no place can route: embeddings, last norm, head."""
    if pool.rest:
        name, paths = next(iter(pool.rest.items()))
        raise NotApplicable(
            f"expert {name} changes {min(paths)}, outside the layers, which can be merged but not routed"
        )
    return pool


def one_stack(base: Base, what: str) -> None:
    """Raise NotApplicable where the layers of a base are no single stack, which `what` works on."""
    if base.kind == "seq2seq":
        raise NotApplicable(
            f"{what} works on the layers of an encoder or a decoder, and the base is a seq2seq"
        )


def loras(config: Any) -> str:
    """The kind of experts of most methods."""
    return "lora"


def chosen_kind(config: Any) -> str:
    """The kind that the configuration's `kind` names; empty for `any`."""
    return "" if config.kind == "any" else config.kind


@dataclass(frozen=True)
class Method:
    """One method under the contract; `needs` and `extras` default to what its card lists."""

    card: Card
    Config: type
    adapt: Callable[[Any, Base], Adapted]
    fit: Callable[[Any, Base, Pool, Grants, Any], Fitted] = nothing_fitted
    contribute: Callable[[Any, Base, Pool, Mapping[str, Rows], Any], dict[str, Extras]] | None = None
    arrays: Callable[[Any, Base, Pool, Fitted], dict[str, Any]] = plain_arrays
    contributed: tuple[str, ...] = ()
    """The fields of Config that `contribute` depends on."""
    kind: Callable[[Any], str] = loras
    """The kind of experts that a configuration routes, of `experts.part.KINDS`; empty: any."""
    grants: Callable[[Any], frozenset[str]] | None = None
    handed: Callable[[Any], frozenset[str]] | None = None
    extend: Callable[[Any, Base, Pool, Fitted], Fitted] | None = None
    """An open method's router for another pool, from the one that was fitted; None: its fit reads experts alone."""
    query: bool = False
    """Whether it looks at `Batch.query`, the request's sentence vector."""
    modes: Mapping[str, Axes] = field(default_factory=dict)
    """Named modes that stand elsewhere in the taxonomy than the card says."""
    unbuilt: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Choices of a setting that were published and are not built here."""
    few: bool = False
    """Whether its route names a few experts for each request or task (or it uses none), so that the others, and all
    while it is fitted, may stay on disk."""
    merge: Callable[[Any, Pool, Fitted], tuple[Float[np.ndarray, "e"], Mode]] | None = None
    """The weights of a merge that is the same for every request, and its mode; None where they vary."""

    def needs(self, config: Any) -> frozenset[str]:
        """The grants that this configuration reads."""
        return self.grants(config) if self.grants else frozenset(self.card.grants)

    def extras(self, config: Any) -> frozenset[str]:
        """The extras of each expert that this configuration reads."""
        return self.handed(config) if self.handed else frozenset(self.card.extras)
