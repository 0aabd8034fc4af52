"""Grants: a method touches only what `needs(config)` lists; everything else raises AccessDenied. Reads are logged.

Training and validation rows only; test rows exist under the three named leaks alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from moejax.contract import Rows, Split
from moejax.taxonomy import GRANTS
from moejax.train.rows import ArrayRows
from moejax.types import AccessDenied, Batch, NotApplicable


@dataclass(frozen=True)
class Target:
    """The held-out task that a fit is for."""

    name: str
    rows: Split
    test: Rows


class Handed:
    """Rows as a method gets them: how many, batches of them and their words, nothing of what they were cut from."""

    __slots__ = ("_count", "_take", "_texts")

    def __init__(self, rows: Rows, labels: bool = True):
        self._count = rows.__len__
        self._take = rows.take if labels else lambda index: without_answers(rows.take(index))
        self._texts = rows.texts

    def __len__(self) -> int:
        return self._count()

    def take(self, index: np.ndarray) -> Batch:
        """The batch of these rows, in this order."""
        return self._take(index)

    def texts(self, index: np.ndarray) -> list[str]:
        """What the requests of these rows say."""
        return self._texts(index)


class Grants:
    """The rows that exist, and which of them may be read; `log` holds every grant that was asked for."""

    def __init__(
        self,
        allowed: frozenset[str],
        experts: Mapping[str, Split],
        target: Target | None = None,
        public: Split | None = None,
    ):
        self.log: set[str] = set()
        self._allowed, self._experts, self._target, self._public = allowed, experts, target, public

    def _ask(self, grant: str) -> None:
        self.log.add(grant)
        if grant not in self._allowed:
            raise AccessDenied(f"{grant} ({GRANTS[grant]}) was read, but is not among the method's grants")

    def expert_labels(self, name: str) -> Split:
        """Inputs and labels of an expert's own training and validation rows."""
        self._ask("expert_labels")
        return _split(self._experts[name])

    def expert_inputs(self, name: str) -> Split:
        """The same without labels."""
        self._ask("expert_inputs")
        return _split(self._experts[name], labels=False)

    def general(self) -> Split:
        """Public rows that belong to no expert and to no target. Raises NotApplicable where there are none."""
        self._ask("general")
        if self._public is None:
            raise NotApplicable(
                "this run has no public rows, which belong to no expert and to no target: name tasks in data.general, "
                "or for the generated suite give data.suite.public"
            )
        return _split(self._public)

    def target_labels(self) -> Split:
        """The few labelled rows of the target that the run's seed drew."""
        self._ask("target_labels")
        return _split(self._goal().rows)

    def target_inputs(self) -> Split:
        """The same without labels."""
        self._ask("target_inputs")
        return _split(self._goal().rows, labels=False)

    def test_labels(self) -> Rows:
        """Leak: the target's test rows with their labels."""
        self._ask("test_labels")
        return Handed(self._goal().test)

    def test_inputs(self) -> Rows:
        """Leak: the target's test rows without labels."""
        self._ask("test_inputs")
        return Handed(self._goal().test, labels=False)

    def _goal(self) -> Target:
        if self._target is None:
            raise AccessDenied("no target task: this fit is for all tasks at once")
        return self._target


def _split(split: Split, labels: bool = True) -> Split:
    return Split(*(Handed(rows, labels) for rows in split))


def without_answers(batch: Batch) -> Batch:
    """The requests and what they may be answered with: no label, no owner, no token that is not the request's own."""
    keep = batch.mask & batch.prompt
    return Batch(
        tokens=np.where(keep, batch.tokens, 0),
        mask=keep,
        prompt=keep,
        pool=None if batch.pool is None else batch.pool & keep,
        choices=batch.choices,
        query=batch.query,
        prefix=None
        if batch.prefix is None
        else np.where(keep[..., None], batch.prefix, batch.prefix.dtype.type(0)),
        weight=batch.weight,
    )


def few(rows: ArrayRows, count: int, seed: int) -> ArrayRows:
    """`count` rows drawn without replacement by the seed (all of them when there are fewer)."""
    chosen = np.random.default_rng(seed).permutation(len(rows))[:count]
    return replace(rows, index=rows.index[np.sort(chosen)])
