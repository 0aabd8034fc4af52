"""Grants: a method touches only what `needs(config)` lists; everything else raises AccessDenied. Reads are logged.

Training and validation rows only; test rows exist under the three named leaks alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from moejax.contract import Rows, Split
from moejax.taxonomy import GRANTS
from moejax.train.rows import ArrayRows
from moejax.types import AccessDenied


@dataclass(frozen=True)
class Target:
    """The held-out task that a fit is for."""

    name: str
    rows: Split
    test: Rows


@dataclass(frozen=True, eq=False)
class Grants:
    """The rows that exist, and which of them may be read."""

    allowed: frozenset[str]
    experts: Mapping[str, Split]
    target: Target | None = None
    public: Split | None = None
    log: set[str] = field(default_factory=set)

    def _read(self, grant: str) -> None:
        self.log.add(grant)
        if grant not in self.allowed:
            raise AccessDenied(f"{grant} ({GRANTS[grant]}) was read, but is not among the method's grants")

    def expert_labels(self, name: str) -> Split:
        """Inputs and labels of an expert's own training and validation rows."""
        self._read("expert_labels")
        return self.experts[name]

    def expert_inputs(self, name: str) -> Split:
        """The same without labels."""
        self._read("expert_inputs")
        return Split(*(unlabelled(rows) for rows in self.experts[name]))

    def general(self) -> Split:
        """Public rows that belong to no expert and to no target."""
        self._read("general")
        if self.public is None:
            raise AccessDenied("general: this run has no public rows")
        return self.public

    def target_labels(self) -> Split:
        """The few labelled rows of the target that the run's seed drew."""
        self._read("target_labels")
        return self._target().rows

    def target_inputs(self) -> Split:
        """The same without labels."""
        self._read("target_inputs")
        return Split(*(unlabelled(rows) for rows in self._target().rows))

    def test_labels(self) -> Rows:
        """Leak: the target's test rows with their labels."""
        self._read("test_labels")
        return self._target().test

    def test_inputs(self) -> Rows:
        """Leak: the target's test rows without labels."""
        self._read("test_inputs")
        return unlabelled(self._target().test)

    def _target(self) -> Target:
        if self.target is None:
            raise AccessDenied("no target task: this fit is for all tasks at once")
        return self.target


def unlabelled(rows: Rows) -> Rows:
    """Rows without what answers them: no targets, no answer positions, no choices."""
    assert isinstance(rows, ArrayRows)
    return ArrayRows(rows.whole._replace(targets=None, answer=None, choices=None, expert=None), rows.index)


def few(rows: ArrayRows, count: int, seed: int) -> ArrayRows:
    """`count` rows drawn without replacement by the seed (all of them when there are fewer)."""
    chosen = np.random.default_rng(seed).permutation(len(rows))[:count]
    return ArrayRows(rows.whole, rows.index[np.sort(chosen)])
