"""A LoRA out of a full fine-tune: the best of low rank for each linear's difference to the base.

W_tuned - W_base = U S V^T; A = sqrt(S) V^T and B = sqrt(S) U^T of the r largest, so that nothing of rank r is nearer
(Eckart and Young). Norms, embeddings and heads have no place in a LoRA: what they moved is told, not kept.
"""

from collections.abc import Collection
from math import hypot
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from moejax.experts.checkpoint import stored
from moejax.experts.expert import Expert, SiteKey
from moejax.experts.lora import Lora, kept
from moejax.experts.read_delta import difference, tensor_of
from moejax.experts.whole import Whole
from moejax.types import UserError


class Extracted(NamedTuple):
    """error: Frobenius, of the LoRA against the linears' whole difference; worst: the site that is least well met.

    left: share of the whole difference, in Frobenius norm, that lies outside the linears, and at how many modules.
    """

    expert: Expert
    error: float
    worst: tuple[SiteKey, float]
    left: float
    others: tuple[str, ...]


def factored(w: Float[np.ndarray, "d f"], rank: int | None, energy: float) -> tuple[Lora, float, float]:
    """The nearest LoRA of scale 1 to x -> x w, and the norms of what is lost and of all."""
    u, s, v_t = np.linalg.svd(w.astype(np.float64), full_matrices=False)
    r = kept(s, rank, energy)
    root = np.sqrt(s[:r])
    a = np.ascontiguousarray((u[:, :r] * root).T, np.float32)
    b = np.ascontiguousarray(v_t[:r] * root[:, None], np.float32)
    return Lora(a, b, float(r)), float(np.linalg.norm(s[r:])), float(np.linalg.norm(s))


def extract(
    folder: Path,
    whole: Whole,
    sites: Collection[SiteKey],
    name: str,
    rank: int | None = None,
    energy: float = 1.0,
    biases: bool = True,
) -> Extracted:
    """The LoRA of a checkpoint, one difference in memory at a time; biases: a linear's too, as `lora_bias`.

    rank: of each site at most; energy: share of the squared singular values that is kept at least, unless `rank` is
    met first. Raises UserError as `read_delta` does, and where no linear differs from the base.
    """
    whole.check(folder)
    files, loras, errors, sizes, others = stored(folder), {}, {}, {}, {}
    moved: dict[SiteKey, np.ndarray] = {}
    for tensor, leaf in whole.leaves.items():
        change = difference(tensor_of(folder, tensor, leaf, files), tensor, leaf, whole)
        if change is None:
            continue
        site = (leaf.module, leaf.layer) if leaf.layer is not None else None
        if site is None or site not in sites or (leaf.path.endswith("/bias") and not biases):
            others[tensor] = float(np.linalg.norm(change))
        elif leaf.path.endswith("/bias"):
            moved[site] = change.astype(np.float32)
        else:
            loras[site], errors[site], sizes[site] = factored(change, rank, energy)
    for (path, layer), bias in moved.items():
        one = loras.get((path, layer)) or _without_factors(whole, path, layer)
        loras[path, layer] = one._replace(bias=bias)
    if not loras:
        raise UserError(f"{folder}: no linear differs from the base: there is no LoRA in it")
    expert = Expert(name, {}, loras)
    size, lost = hypot(*sizes.values()), hypot(*errors.values())
    relative = {site: errors[site] / sizes[site] for site in sizes}
    worst = max(relative, key=lambda site: relative[site], default=next(iter(loras)))
    outside, inside = (
        hypot(*others.values()),
        hypot(size, *(float(np.linalg.norm(b)) for b in moved.values())),
    )
    return Extracted(
        expert,
        lost / size if size else 0.0,
        (worst, relative.get(worst, 0.0)),
        outside / hypot(outside, inside),
        tuple(others),
    )


def _without_factors(whole: Whole, path: str, layer: int) -> Lora:
    """A LoRA of rank 1 that does nothing, for a bias to stand beside."""
    leaf = next(
        leaf
        for leaf in whole.leaves.values()
        if (leaf.module, leaf.layer) == (path, layer) and not leaf.path.endswith("/bias")
    )
    d, f = leaf.shape[::-1] if leaf.turned else leaf.shape
    return Lora(np.zeros((1, d), np.float32), np.zeros((1, f), np.float32), 1.0)
