"""An expert of differences as a whole checkpoint, which transformers loads: base plus difference, tensor by tensor."""

import numpy as np

from moejax.experts.expert import Expert
from moejax.experts.whole import Leaf, Whole
from moejax.types import UserError


def tensors(expert: Expert, whole: Whole) -> dict[str, np.ndarray]:
    """Every tensor of the base under its Hugging Face name, with the expert's differences in it.

    Raises UserError on a site or parameter that the base lacks, a wrong shape, or a value that is not finite.
    """
    here, used, found = f"expert {expert.name!r}", set(), {}
    for name, leaf in whole.leaves.items():
        change, key = _change(expert, leaf)
        used.add(key)
        values = whole.tensor(name)
        if change is not None:
            change = change.T if leaf.turned else change
            if change.size != values.size or not np.isfinite(change).all():
                raise UserError(f"{here} at {leaf.path!r}: expected {list(leaf.shape)} finite numbers")
            values = values + change.reshape(values.shape)
        found[name] = values
    if lacking := (expert.deltas.keys() | expert.rest.keys()) - used:
        raise UserError(f"{here} at {min(map(str, lacking))}: the base has no such site")
    return found


def _change(expert: Expert, leaf: Leaf) -> tuple[np.ndarray | None, object]:
    """The difference of one parameter, and where in the expert it stands."""
    if leaf.layer is None:
        return expert.rest.get(leaf.path), leaf.path
    one = expert.deltas.get((leaf.module, leaf.layer))
    if one is None:
        return None, (leaf.module, leaf.layer)
    return (one.bias if leaf.path.endswith("/bias") else one.w), (leaf.module, leaf.layer)
