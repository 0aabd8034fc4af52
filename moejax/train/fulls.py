"""Experts trained in full: every parameter of the layers that experts adapt, each expert by itself."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from moejax.adapted import Adapted, depth
from moejax.contract import Rows
from moejax.experts.bank import Bank
from moejax.experts.delta import Delta
from moejax.experts.expert import Expert, SiteKey
from moejax.experts.merge_deltas import WEIGHT
from moejax.models.base import Base
from moejax.train.optimiser import Optimiser
from moejax.train.rows import drawn, seed_of
from moejax.train.tree_file import flatten
from moejax.train.work import Work
from moejax.types import PyTree, UserError

INSIDE = "layers/"


@dataclass(frozen=True)
class FullRecipe:
    """How an expert is fine-tuned in full: all of the lowest layer that LoRA experts adapt, and of those above it."""

    outside: bool = False
    """Whether embeddings and what else is outside the layers is trained too, where all layers are."""
    batch: int = 32
    """Rows in a step."""
    optimiser: Optimiser = Optimiser(1e-4, 30)
    """How its parameters are trained."""


def train_fulls(base: Base, rows: Mapping[str, Rows], recipe: FullRecipe, work: Work) -> dict[str, Expert]:
    """One expert a name, one after the other by one program, each from its own seed.

    Trained are the layers that `base` has parameters of. Raises UserError where `outside` is asked for and layers are
    cut off: nothing below them can be trained.
    """
    first = base.layers - depth(base.params)
    if recipe.outside and first:
        raise UserError(
            f"fulls.outside is true, but layers below {first} are not trained: say --experts.layers None"
        )
    before = base.params if recipe.outside else {"layers": base.params["layers"]}
    bank = Bank({}, np.zeros(0, bool))  # pyright: ignore[reportArgumentType]
    arrays = {"params": base.params, "bank": bank, "router": {}, "labels": base.labels}
    made = {}
    for name in sorted(rows):
        stream = drawn(rows[name], recipe.batch, seed_of(name, work.seed))
        found = work.train(name, Adapted(base.model), arrays, {"params": before}, stream, recipe.optimiser)
        deltas, rest = differences(before, found["params"], first)
        made[name] = Expert(name, {}, {}, deltas=deltas, rest=rest)
    return made


def differences(
    before: PyTree, after: PyTree, first: int
) -> tuple[dict[SiteKey, Delta], dict[str, np.ndarray]]:
    """after - before: by (path, layer) in the layers, of which the lowest given one is `first`; by path elsewhere."""
    old, new = flatten(before), flatten(after)
    change = {path.replace("|", "/"): np.subtract(new[path], old[path], dtype=np.float32) for path in old}
    rest = {path: one for path, one in change.items() if not path.startswith(INSIDE) and one.any()}
    deltas: dict[SiteKey, Delta] = {}
    for module in {path.rpartition("/")[0] for path in change if path.startswith(INSIDE)}:
        w = next(change[f"{module}/{name}"] for name in WEIGHT.values() if f"{module}/{name}" in change)
        w = w if w.ndim == 3 else w[:, None]
        bias = change.get(f"{module}/bias", np.zeros((len(w), w.shape[-1]), np.float32))
        for i in range(len(w)):
            if w[i].any() or bias[i].any():
                deltas[module, first + i] = Delta(w[i].copy(), bias[i].copy())
    return dict(sorted(deltas.items())), rest
