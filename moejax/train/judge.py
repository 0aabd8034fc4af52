"""A classifier of requests into three verdicts: a copy of the base's layers, tuned, and a linear head.

Logits W m + b of (strong wins, tie, weak wins), where m is the mean of the final states over the request's tokens.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from moejax.adapted import Adapted, one_pass
from moejax.contract import Rows
from moejax.models.base import Base
from moejax.models.pooling import mean
from moejax.train.rows import Stream, order, stack
from moejax.types import Batch, PRNGKey, PyTree


def fresh(base: Base, key: PRNGKey) -> dict[str, Any]:
    """The base's given layers and a head ~ N(0, 0.02^2) without a bias, as BERT's classifiers begin."""
    d: int = base.model.config.width  # pyright: ignore[reportAttributeAccessIssue]
    head = 0.02 * jax.random.normal(key, (3, d))
    return {"layers": base.params["layers"], "head": head, "bias": jnp.zeros(3)}


def classified(bare: Adapted, arrays: PyTree, batch: Batch) -> Float[Array, "b 3"]:
    """Logits of (strong wins, tie, weak wins), from the tuned layers' mean state over the request."""
    model = arrays["router"]["model"]
    tuned = arrays | {"params": arrays["params"] | {"layers": model["layers"]}}
    asked = batch._replace(mask=batch.mask & batch.prompt, targets=None, answer=None)
    return mean(one_pass(bare, tuned, asked).hidden, batch.prompt) @ model["head"].T + model["bias"][None]


def judged(
    adapted: Adapted, arrays: PyTree, batch: Batch, **options: Any
) -> tuple[Float[Array, "b"], PyTree]:
    """Cross-entropy of the three verdicts, which stand in `targets`."""
    logp = jax.nn.log_softmax(classified(adapted, arrays, batch))
    return -jnp.take_along_axis(logp, batch.targets[:, None], axis=1)[:, 0], {}


def judgements(rows: Sequence[Rows], verdicts: Int[np.ndarray, "n"], batch: int, seed: int) -> Stream:
    """Batches of rows of several sets in one endless shuffled pass, each row's verdict in place of its target."""
    ends = np.cumsum([len(some) for some in rows])
    at = order(int(ends[-1]), seed)

    def drawn(step: int) -> Batch:
        index = np.array([at(step * batch + i) for i in range(batch)])
        own = np.searchsorted(ends, index, side="right")
        parts = [some.take(index[own == i] - (ends[i] - len(some))) for i, some in enumerate(rows)]
        said = np.concatenate([verdicts[index[own == i]] for i in range(len(rows))])
        return stack(parts)._replace(
            targets=said, answer=None, choices=None, weight=np.ones(batch, np.float32)
        )

    return drawn
