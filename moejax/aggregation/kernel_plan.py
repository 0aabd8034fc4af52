"""Which expert's block each (token, chosen expert) pair is computed in: every block of m rows has one expert.

Made on the device from the chosen experts, in shapes that are known before: pairs are ordered by expert, and each
expert is given whole blocks, the last of them padded. At most (n k + q (m - 1)) / m blocks, q = min(e, n k), are used.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int

FEWEST = 16  # rows of a block: a tile of a GPU's matrix unit, and of bfloat16 on a TPU
MOST = {"tpu": 128, "gpu": 64}  # a side of a TPU's matrix unit; what a GPU's registers hold of a block's sums


class Plan(NamedTuple):
    """g blocks of m rows. The pair of token i and its j-th expert has the number i k + j.

    expert [g]    of each block; blocks that are not used repeat the last one that is, so that nothing is fetched
    pair   [g m]  the pair that each row computes; n k in padding
    place  [n, k] the row that computes each pair
    ends   [e]    blocks up to and with each expert's; the last is the number of blocks used
    """

    expert: Int[Array, "g"]
    pair: Int[Array, "gm"]
    place: Int[Array, "n k"]
    ends: Int[Array, "e"]


def rows(backend: str, pairs: int, e: int) -> int:
    """Rows of a block, m: the power of two nearest to pairs / e, between 16 and what the backend holds."""
    m = FEWEST
    while m < MOST[backend] and m * m * 2 < (pairs / e) ** 2:
        m *= 2
    return m


def height(plan: Plan) -> int:
    """Rows of a block, m, of a plan that was made."""
    return plan.pair.shape[0] // plan.expert.shape[0]


def plan(index: Int[Array, "n k"], e: int, m: int) -> Plan:
    """Blocks of m rows for the chosen experts, 0 to e - 1 (a number outside is taken for the nearest)."""
    chosen = jnp.clip(index.reshape(-1), 0, e - 1)
    pairs = chosen.shape[0]
    g = (pairs + min(e, pairs) * (m - 1)) // m
    sizes = jnp.zeros(e, jnp.int32).at[chosen].add(1)
    blocks = (sizes + m - 1) // m
    ends = jnp.cumsum(blocks)
    order = jnp.argsort(chosen, stable=True).astype(jnp.int32)
    gap = (ends - blocks) * m - (jnp.cumsum(sizes) - sizes)  # rows of padding before each expert's first pair
    at = jnp.arange(pairs, dtype=jnp.int32) + gap[chosen[order]]
    block = jnp.minimum(jnp.arange(g, dtype=jnp.int32), ends[-1] - 1)
    return Plan(
        jnp.searchsorted(ends, block, side="right", method="compare_all").astype(jnp.int32),
        jnp.full(g * m, pairs, jnp.int32).at[at].set(order),
        jnp.zeros(pairs, jnp.int32).at[order].set(at).reshape(index.shape),
        ends.astype(jnp.int32),
    )
