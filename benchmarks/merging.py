"""Part 5: exact Arrow prototypes, and exact merges of products made small again, beside peft's ways to the same."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from benchmarks.cases import SCALE, Case, Size, directions, draw
from benchmarks.measure import EFFORT, Call, Effort, Entry, measure
from moejax.experts.lora import Lora, compress, merge
from moejax.routing.prototypes import top_direction

PROTOTYPES = (Size(1, 1024, 256),)
MERGES = tuple(Size(1, 1024, e) for e in (8, 32, 256))
EXACT, SMALL = "ours, QR and SVD of r × r", "ours, merge of products, compressed"


def loras(case: Case) -> list[Lora]:
    """The experts of a case."""
    return [Lora(a, b, SCALE * case.size.r) for a, b in zip(case.a, case.b, strict=True)]


def merged(case: Case) -> Lora:
    """Their mean, of the rank of one."""
    some = loras(case)
    return compress(merge(some, [1 / len(some)] * len(some)), case.size.r)[0]


def prototypes(case: Case) -> Call:
    """The prototypes of all experts, called as Arrow calls it."""
    a, b = jnp.asarray(case.a), jnp.asarray(case.b)
    return lambda: top_direction(a, b)


def agreement(case: Case, theirs: Float[np.ndarray, "e d"]) -> list[float]:
    """|cosine| of other prototypes to the exact ones: median and least."""
    exact = directions(case.a, case.b)
    cosine = np.abs(np.sum(exact * theirs, axis=1)) / np.linalg.norm(theirs, axis=1)
    return [float(np.median(cosine)), float(np.min(cosine))]


def part(
    effort: Effort = EFFORT,
    peers: bool = True,
    many: Sequence[Size] = PROTOTYPES,
    merges: Sequence[Size] = MERGES,
) -> Iterator[dict[str, Any]]:
    """Each divided by ours; there is nothing bare here."""
    for size in many:
        case = draw(size)
        entries = [Entry(EXACT, partial(prototypes, case), EXACT)]
        about: dict[str, Any] = {"title": f"prototypes, {size}", "size": asdict(size)}
        if peers:
            from benchmarks import peers_merging

            call = partial(peers_merging.prototypes, case)
            entries.append(Entry("peft, 15 power iterations", call, EXACT, "peer", beside=EXACT))
            about["agreement"] = agreement(case, peers_merging.prototypes(case)().numpy())
        yield about | {"rows": measure(entries, effort)}
    for size in merges:
        case = draw(size)
        entries = [Entry(SMALL, lambda case=case: partial(merged, case), SMALL)]
        if peers:
            from benchmarks import peers_merging

            need = 4.0 * size.e * size.d**2
            call = partial(peers_merging.svd, case)
            entries.append(Entry("peft, svd", call, SMALL, "peer", rival=SMALL, need=need))
        yield {"title": f"merge, {size}", "size": asdict(size), "rows": measure(entries, effort)}
