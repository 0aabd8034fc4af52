"""Many tokens, each with k of e experts: rows ordered by expert, in blocks of one expert each.

Three sums, closed under transposition: the gradients of each are the other two.

    shrink  z[i, j] = A_{index[i, j]} x[i]               [n, d] -> [n, k, r]
    expand  y[i]    = sum_j B_{index[i, j]}^T z[i, j]    [n, k, r] -> [n, f]
    outer   G_e     = sum of z[i, j] (x) x[i] over the pairs (i, j) with index[i, j] = e    -> [s, e, r, d]

A loop over the blocks that are used does one small matmul each. Nothing of the size of the pool is built but the
gradients: factors are read by (slot, expert) in one slice, rows of x and y where they stand.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import dynamic_slice, dynamic_update_slice
from jaxtyping import Array, Bool, Float, Int, Shaped

Factor = Float[Array, "s e r d"]


class Plan(NamedTuple):
    """Which rows each block has: those at start <= i < end of the pairs in their order, all of one expert.

    pair [p + m]: pair i k + j at each place of the order, p = n k beyond the last; start, end, expert [g]; used [].
    The blocks of an expert follow each other, and so do the experts.
    """

    pair: Int[Array, "q"]
    start: Int[Array, "g"]
    end: Int[Array, "g"]
    expert: Int[Array, "g"]
    used: Int[Array, ""]


def plan(index: Int[Array, "n k"], experts: int, size: int) -> Plan:
    """Pairs ordered by expert, and cut into blocks of at most `size` rows, one expert each.

    At most p / size + min(e, p) blocks, of which `used` have rows. A pair whose index is e has no expert here.
    """
    p = index.size
    expert, pair = _ordered(index.reshape(p), experts + 1)
    here = expert < experts
    place = jnp.arange(p, dtype=jnp.int32)
    first = jnp.concatenate([jnp.ones(1, bool), expert[1:] != expert[:-1]])
    heads = here & ((place - jax.lax.cummax(jnp.where(first, place, 0))) % size == 0)
    blocks = min(p, p // size + min(experts, p))
    start = jnp.pad(jnp.sort(jnp.where(heads, place, p)), (0, 1), constant_values=p)
    each = expert.at[start[:blocks]].get(mode="clip")
    pair = jnp.pad(pair, (0, size), constant_values=p)
    end = jnp.minimum(start[1 : blocks + 1], jnp.sum(here, dtype=jnp.int32))
    return Plan(pair, start[:blocks], end, each, jnp.sum(heads, dtype=jnp.int32))


def _ordered(expert: Int[Array, "p"], experts: int) -> tuple[Int[Array, "p"], Int[Array, "p"]]:
    """The experts in rising order and the pairs that had them; one sort of one word where both fit into it."""
    p = expert.size
    if experts * p < 2**31:
        word = jnp.sort(expert * p + jnp.arange(p, dtype=jnp.int32))
        return word // p, word % p
    pair = jnp.argsort(expert, stable=True).astype(jnp.int32)
    return expert[pair], pair


def _size(plan: Plan, pairs: int) -> int:
    return plan.pair.size - pairs


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def shrink(
    x: Float[Array, "n d"], a: Factor, slot: Int[Array, ""], plan: Plan, k: int
) -> Float[Array, "n k r"]:
    """z[i, j] = A_{index[i, j]} x[i], float32."""
    n, r = x.shape[0], a.shape[2]
    m = _size(plan, n * k)

    def block(g, z):
        pair = dynamic_slice(plan.pair, (plan.start[g],), (m,))
        rows = _rows(x, pair // k)
        new = jnp.einsum(
            "md,rd->mr", rows, _one(a, slot, plan.expert[g], x), preferred_element_type=jnp.float32
        )
        return _put(z, pair, jnp.where(_own(plan, g, m), new, 0.0))  # another expert's block comes later

    z = jax.lax.fori_loop(0, plan.used, block, jnp.zeros((n * k + 1, r), jnp.float32))
    return z[:-1].reshape(n, k, r)


@jax.custom_vjp
def expand(z: Float[Array, "n k r"], b: Factor, slot: Int[Array, ""], plan: Plan) -> Float[Array, "n f"]:
    """y[i] = sum_j B_{index[i, j]}^T z[i, j], float32."""
    (n, k, r), f = z.shape, b.shape[3]
    flat, m = z.reshape(-1, r), _size(plan, n * k)

    def block(g, y):
        pair = dynamic_slice(plan.pair, (plan.start[g],), (m,))
        rows = jnp.where(_own(plan, g, m), flat.at[pair].get(mode="clip"), 0.0).astype(b.dtype)
        new = jnp.einsum(
            "mr,rf->mf", rows, _one(b, slot, plan.expert[g], b), preferred_element_type=jnp.float32
        )
        return _add(y, jnp.minimum(pair // k, n - 1), new)

    return jax.lax.fori_loop(0, plan.used, block, jnp.zeros((n, f), jnp.float32))


def outer(
    z: Float[Array, "n k r"], x: Float[Array, "n d"], slot: Int[Array, ""], plan: Plan, like: Factor
) -> Factor:
    """G_e = sum of z[i, j] (x) x[i] over the pairs (i, j) with index[i, j] = e, in one slot of zeros."""
    (n, k, r), d = z.shape, x.shape[1]
    flat, m = z.reshape(-1, r), _size(plan, n * k)

    def block(g, found):
        pair = dynamic_slice(plan.pair, (plan.start[g],), (m,))
        rows = _rows(x, pair // k)
        own = jnp.where(_own(plan, g, m), flat.at[pair].get(mode="clip"), 0.0).astype(x.dtype)
        new = jnp.einsum("mr,md->rd", own, rows, preferred_element_type=jnp.float32)
        at = (slot, plan.expert[g], 0, 0)
        before = dynamic_slice(found, at, (1, 1, r, d))
        return dynamic_update_slice(found, before + new[None, None], at)

    found = jax.lax.fori_loop(0, plan.used, block, jnp.zeros(like.shape, jnp.float32))
    return found.astype(like.dtype)


def _shrink_forward(x, a, slot, plan, k):
    return shrink(x, a, slot, plan, k), (x, a, slot, plan)


def _shrink_backward(k, kept, dz):
    x, a, slot, plan = kept
    return expand(dz, a, slot, plan).astype(x.dtype), outer(dz, x, slot, plan, a), None, None


def _expand_forward(z, b, slot, plan):
    return expand(z, b, slot, plan), (z, b, slot, plan)


def _expand_backward(kept, dy):
    z, b, slot, plan = kept
    return shrink(dy, b, slot, plan, z.shape[1]), outer(z, dy, slot, plan, b), None, None


shrink.defvjp(_shrink_forward, _shrink_backward)
expand.defvjp(_expand_forward, _expand_backward)


def _one(stack: Factor, slot: Int[Array, ""], expert: Int[Array, ""], like: Array) -> Float[Array, "r d"]:
    return dynamic_slice(stack, (slot, expert, 0, 0), (1, 1, *stack.shape[2:]))[0, 0].astype(like.dtype)


@jax.jit  # as below: unrolled, and so traced once for all places of one shape; XLA takes it in where it stands
def _rows(x: Shaped[Array, "n d"], at: Int[Array, "m"]) -> Shaped[Array, "m d"]:
    """Rows of x, each a slice: faster than one gather."""
    last, width = x.shape[0] - 1, x.shape[1]
    return jnp.concatenate(
        [dynamic_slice(x, (jnp.minimum(at[i], last), 0), (1, width)) for i in range(at.size)]
    )


def _own(plan: Plan, g: int | Int[Array, ""], m: int) -> Bool[Array, "m 1"]:
    """Which rows of a block are before its end."""
    return (plan.start[g] + jnp.arange(m) < plan.end[g])[:, None]


@jax.jit
def _put(z: Array, at: Int[Array, "m"], rows: Array) -> Array:
    for i in range(at.size):
        z = dynamic_update_slice(z, rows[i : i + 1], (at[i], 0))
    return z


@jax.jit
def _add(y: Array, at: Int[Array, "m"], rows: Array) -> Array:
    for i in range(at.size):
        before = dynamic_slice(y, (at[i], 0), (1, y.shape[1]))
        y = dynamic_update_slice(y, before + rows[i : i + 1], (at[i], 0))
    return y
