"""A choice between a strong and a weak member, looked up in the outcomes matrix: answers, and what the choice is worth.

No member runs again: at any threshold an answer is the strong member's or the weak one's, which are known.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from moejax.contract import Pair, Rows
from moejax.evaluate.compare import Truth
from moejax.evaluate.cost_curve import curve, summary
from moejax.train.outcomes import BASE, BESIDE, MERGED, wanted
from moejax.types import PyTree


class LookedUp(NamedTuple):
    """Of the rows of one task: how much each wants the strong member, both members' choices, who they are.

    price: of the strong and of the weak member; threshold: alpha.
    """

    wants: Float[np.ndarray, "n"]
    strong: Int[np.ndarray, "n"]
    weak: Int[np.ndarray, "n"]
    names: tuple[str, str]
    price: tuple[float, float]
    threshold: float

    @property
    def answers(self) -> Int[np.ndarray, "n"]:
        """The choices at the router's own threshold."""
        return np.where(self.wants >= self.threshold, self.strong, self.weak)


def look_up(
    route: Pair,
    arrays: PyTree,
    rows: Rows,
    size: int,
    experts: Sequence[str],
    choices: Mapping[str, Int[np.ndarray, "n"]],
) -> LookedUp:
    """What a route wants of these rows; choices: name of a member -> its choices for them."""
    model, alpha = arrays["router"]["model"], arrays["router"]["knobs"]["threshold"]
    special = {-1: BASE, -2: MERGED, -3: BESIDE}
    strong, weak = (special.get(e) or experts[e] for e in (int(model["strong"]), int(model["weak"])))
    dear, cheap = np.asarray(model["price"]).tolist()
    wants = wanted(route, arrays, rows, size)
    return LookedUp(wants, choices[strong], choices[weak], (strong, weak), (dear, cheap), float(alpha))


def curves(found: Mapping[str, LookedUp], truths: Mapping[str, Truth]) -> dict[str, Any]:
    """The pair, and of each split and group the cost-quality curve, and where the threshold stands on it."""
    first = next(iter(found.values()))
    groups = sorted({str(group) for name in found for group in np.unique(truths[name].group)})
    splits: dict[str, Any] = {}
    for split, held_in in (("held_in", True), ("held_out", False)):
        names = [name for name in truths if truths[name].held_in == held_in and name in found]
        cells = {group: _cell(found, truths, names, group, first.price) for group in groups}
        splits[split] = {group: cell for group, cell in cells.items() if cell is not None} or None
    return {
        "strong": first.names[0],
        "weak": first.names[1],
        "price": {"strong": first.price[0], "weak": first.price[1]},
        **splits,
    }


def _cell(
    found: Mapping[str, LookedUp], truths: Mapping[str, Truth], names: Sequence[str], group: str,
    price: tuple[float, float],
) -> dict[str, Any] | None:  # fmt: skip
    here = {name: truths[name].group == group for name in names if np.any(truths[name].group == group)}
    if not here:
        return None

    def rows(part: str) -> np.ndarray:
        return np.concatenate([getattr(found[name], part)[at] for name, at in here.items()])

    right = np.concatenate([truths[name].right[at] for name, at in here.items()])
    called = np.concatenate([(found[name].wants >= found[name].threshold)[at] for name, at in here.items()])
    made = curve(rows("wants"), rows("strong") == right, rows("weak") == right)
    own = {"called": float(called.mean()), "accuracy_there": float((rows("answers") == right).mean())}
    return summary(made, price) | own
