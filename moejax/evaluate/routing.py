"""What a router does: weights, load and entropy by site and layer, weights by task, experts of single tokens.

Real tokens only, and only layers that some expert adapts. Sums are made on the device, one batch a task.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from moejax.adapted import Adapted, run
from moejax.experts.bank import Bank
from moejax.models.seq2seq import Seq2Seq, said
from moejax.paged import of_all
from moejax.routing import select
from moejax.site import sown
from moejax.types import Batch, PyTree, Weights

UNITS = ("task", "request", "token")
"""How fine weights are, by the number of axes before the experts': the survey's Task, Example and Step."""


class Sums(NamedTuple):
    """One site's sums over positions: tokens, requests, or the one position of weights that never change."""

    weight: Float[Array, "l e"]
    top: Float[Array, "l e"]
    entropy: Float[Array, "l"]
    positions: Float[Array, ""]
    here: Bool[Array, "l"]


class Seen(NamedTuple):
    """What one batch shows; `each` is the mean of the weights over sites and layers, as fine as the finest of them."""

    sites: dict[str, Sums]
    each: Float[Array, "*n e"]


@partial(jax.jit, static_argnames="adapted")
def look(arrays: PyTree, batch: Batch, *, adapted: Adapted) -> Seen:
    """Run one batch and reduce the weights of all sites; rows of weight 0 do not count.

    Of a seq2seq, the decoder's step weights count at the tokens that it is fed, and not in `each`, which is the text's.
    """
    bank = arrays["bank"]
    records: dict[str, Weights] = sown(run(adapted, arrays, batch, record=True).records, "weights")
    spelled = {path: select.dense(weights, bank.alive.size) for path, weights in records.items()}
    real = jnp.ones(len(batch.tokens), bool) if batch.weight is None else batch.weight > 0
    counted, model = (jnp.ones((), bool), real, batch.mask & real[:, None]), adapted.model
    sites, total, layers = {}, jnp.zeros(bank.alive.size), 0
    for path, w in spelled.items():
        here, positions = adapted_layers(bank, path, len(w)), counted[w.ndim - 2].astype(jnp.float32)
        fed = isinstance(model, Seq2Seq) and w.ndim == 4 and path.startswith("layers/")
        if fed:
            positions = (said(model.config, batch).mask & real[:, None]).astype(jnp.float32)
        over = "ab"[: w.ndim - 2]
        add = partial(jnp.einsum, f"{over},l{over}...->l...", positions)
        sites[path] = Sums(add(w), add(_top(w)), add(_entropy(w)), jnp.sum(positions), here)
        if not fed:
            total = _finer(total, jnp.einsum("l,l...->...", here.astype(jnp.float32), w))
            layers += jnp.sum(here)
    return Seen(sites, total / jnp.maximum(layers, 1))


def over_all(seen: Seen, arrays: PyTree) -> Seen:
    """What was seen right before, over all experts of the pool where its program ran by slots."""
    sites = {
        path: sums._replace(weight=of_all(arrays, sums.weight), top=of_all(arrays, sums.top))
        for path, sums in seen.sites.items()
    }
    return Seen(sites, of_all(arrays, seen.each))


def adapted_layers(bank: Bank, path: str, ran: int) -> Bool[Array, "l"]:
    """In which of the layers that ran an expert adapts this linear, or any within this module."""
    within = [s.slot[-ran:] for p, s in bank.sites.items() if f"{p}/".startswith(f"{path}/")]
    return jnp.any(jnp.stack(within) >= 0, axis=0) if within else jnp.ones(ran, bool)


def _top(w: Float[Array, "*n e"]) -> Float[Array, "*n e"]:
    """One for the largest weight of a position, shared evenly among equals; zeros where there is none."""
    best = jnp.max(w, axis=-1, keepdims=True)
    tops = (w == best) & (best > 0)
    return tops / jnp.maximum(jnp.sum(tops, axis=-1, keepdims=True), 1)


def _entropy(w: Float[Array, "*n e"]) -> Float[Array, "*n"]:
    """-sum p log p of p = |w| / sum |w|, in nats."""
    size = jnp.abs(w)
    p = size / jnp.maximum(jnp.sum(size, axis=-1, keepdims=True), 1e-30)
    return -jnp.sum(jax.scipy.special.xlogy(p, p), axis=-1)


def _finer(total: Float[Array, "*n e"], w: Float[Array, "*m e"]) -> Float[Array, "*k e"]:
    """The sum of two; what is coarser counts for each of the finer."""
    rank = max(total.ndim, w.ndim)
    total, w = (x.reshape(*x.shape[:-1], *(1,) * (rank - x.ndim), x.shape[-1]) for x in (total, w))
    return jnp.broadcast_to(total, jnp.broadcast_shapes(total.shape, w.shape)) + w


def named(bank: Bank, names: Sequence[str]) -> dict[int, str]:
    """Slot -> name of the experts that are alive; a bank that a fit made is not of the pool's experts: numbers."""
    ours = bank.alive.size >= len(names)
    alive = np.flatnonzero(bank.alive).tolist()
    return {e: names[e] if ours and e < len(names) else f"expert {e + 1}" for e in alive}


def summary(
    seen: Mapping[str, Seen], batches: Mapping[str, Batch], experts: Mapping[int, str], layers: int
) -> dict[str, Any]:
    """The plain record of a method from what each task's batch showed, fetched; `experts` as `named` gives them.

    sites: path -> layers, and of each the mean weight and the load (share of positions whose largest weight it is)
    of every expert, and the entropy; tasks: task -> mean weight of every expert over sites and layers.
    """
    first, keep, sites = next(iter(seen.values())), list(experts), {}
    for path in first.sites:
        parts = [one.sites[path] for one in seen.values()]
        weight, top, entropy, positions = (
            np.sum(leaves, axis=0) for leaves in zip(*(one[:4] for one in parts), strict=True)
        )
        here, size = np.flatnonzero(parts[0].here), max(float(positions), 1.0)
        sites[path] = {
            "layers": (here + layers - len(weight)).tolist(),
            "weight": _plain(weight[here][:, keep] / size),
            "load": _plain(top[here][:, keep] / size),
            "entropy": _plain(entropy[here] / size),
        }
    return {
        "unit": UNITS[first.each.ndim - 1],
        "experts": list(experts.values()),
        "sites": sites,
        "tasks": {task: _plain(_mean(one.each, batches[task])[keep]) for task, one in seen.items()},
        "rows": sum(int(np.sum(batch.weight)) for batch in batches.values()),
    }


def _mean(each: Float[Array, "*n e"] | Float[np.ndarray, "*n e"], batch: Batch) -> Float[np.ndarray, "e"]:
    """The mean over the positions that count."""
    weights = np.asarray(each)
    if weights.ndim == 1:
        return weights
    counts = batch.weight > 0 if weights.ndim == 2 else batch.mask & (batch.weight > 0)[:, None]
    return weights[np.asarray(counts)].mean(axis=0)


def tokens(each: Float[np.ndarray, "t e"], words: Sequence[str]) -> dict[str, list[Any]]:
    """The tokens of one text, each with the number of its top expert (None: no weight) and that weight."""
    top, most = np.argmax(each, axis=-1), np.max(each, axis=-1)
    return {
        "tokens": list(words),
        "expert": [int(e) if w > 0 else None for e, w in zip(top, most, strict=True)],
        "weight": _plain(most),
    }


def _plain(numbers: Any) -> Any:
    """Nested lists of numbers, five digits: what a picture needs."""
    return np.round(np.asarray(numbers, float), 5).tolist()
