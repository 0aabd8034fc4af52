"""The three products of a plan's blocks on a GPU, in Pallas lowered to Triton: a program is one block, or one expert.

A program loads the numbers of its pairs and of its expert, and with them the rows of x and of the bank: nothing is
brought into order before, and every pair's result is written to its own place. Triton's blocks have powers of two
on each side, 16 at least for its products: what is beyond the real sizes is masked.

Not Mosaic GPU, Pallas' other lowering, which does not gather rows by number. jax 0.11 warns that it will drop Triton.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as pltriton
from jaxtyping import Array, Float, Int

from moejax.aggregation.kernel_plan import Plan, height

STAGE_BYTES = 2**15  # of one step's operands in shared memory, of which a pipelined loop holds a few
WIDEST = 128  # columns of a tile
PROGRAMS = 256  # that a kernel should have at least: two for each of some hundred multiprocessors


def shrink(
    x: Float[Array, "n d"], a: Float[Array, "s e r d"], slot: Int[Array, ""], plan: Plan, interpret: Any
) -> Float[Array, "n k r"]:
    """z[i, j] = A[slot, index[i, j]] x[i], in float32.

    Each program goes over the tiles of d. Where blocks are few, d is shared among programs, and XLA adds their sums.
    """
    (n, k), g, (r, d) = plan.place.shape, plan.expert.shape[0], a.shape[2:]
    tile = _tile(d, height(plan), r)
    splits = min(max(1, PROGRAMS // g), pl.cdiv(d, tile))
    steps = pl.cdiv(pl.cdiv(d, tile), splits)
    kernel = functools.partial(_shrink, tile=tile, steps=steps, k=k)
    z = _call(kernel, (g, splits), (splits, n * k, r), jnp.float32, interpret)(slot[None], *_read(plan), x, a)
    return jnp.sum(z, axis=0).reshape(n, k, r)


def _shrink(slot, expert, pair, ends, x, a, z, *, tile, steps, k):
    block, split = pl.program_id(0), pl.program_id(1)

    @pl.when(block < ends[ends.shape[0] - 1])
    def _():
        m = pair.shape[0] // expert.shape[0]
        pairs, ranks = pair[pl.ds(block * m, m)], jnp.arange(_power(a.shape[2]))
        tokens, at = lax.div(pairs, jnp.int32(k)), (slot[0], expert[block])

        def step(t, total):
            columns = (split * steps + t) * tile + jnp.arange(tile)
            rows = _load(x, (), tokens, columns)
            return total + pltriton.dot(rows, _load(a, at, ranks, columns).astype(x.dtype), trans_b=True)

        total = lax.fori_loop(0, steps, step, jnp.zeros((m, ranks.shape[0]), jnp.float32))
        _store(z, (split,), pairs, ranks, total)


def expand(
    z: Float[Array, "n k r"],
    b: Float[Array, "s e r f"],
    slot: Int[Array, ""],
    plan: Plan,
    dtype: jnp.dtype,
    interpret: Any,
) -> Float[Array, "n f"]:
    """y[i] = sum_j z[i, j] B[slot, index[i, j]], of products in `dtype` added in float32; XLA adds the k."""
    (n, k), g, (r, f) = plan.place.shape, plan.expert.shape[0], b.shape[2:]
    tile = _tile(f, height(plan), r)
    kernel = functools.partial(_expand, tile=tile)
    call = _call(kernel, (g, pl.cdiv(f, tile)), (n * k, f), dtype, interpret)
    each = call(slot[None], *_read(plan), z.reshape(n * k, r), b).reshape(n, k, f)
    return jnp.sum(each, axis=1, dtype=jnp.float32).astype(dtype)


def _expand(slot, expert, pair, ends, z, b, y, *, tile):
    block, part = pl.program_id(0), pl.program_id(1)

    @pl.when(block < ends[ends.shape[0] - 1])
    def _():
        m = pair.shape[0] // expert.shape[0]
        pairs, ranks = pair[pl.ds(block * m, m)], jnp.arange(_power(b.shape[2]))
        columns = part * tile + jnp.arange(tile)
        rows, factor = _load(z, (), pairs, ranks), _load(b, (slot[0], expert[block]), ranks, columns)
        _store(y, (), pairs, columns, pltriton.dot(rows.astype(y.dtype), factor.astype(y.dtype)))


def outer(
    z: Float[Array, "n k r"], x: Float[Array, "n d"], plan: Plan, interpret: Any
) -> Float[Array, "e r d"]:
    """Of each expert, the sum over its pairs (i, j) of z[i, j] (x) x[i], in float32.

    A program is one expert and one tile of d: it goes over the expert's blocks, if any, and writes the sum once.
    """
    (n, k), e, r, d = plan.place.shape, plan.ends.shape[0], z.shape[2], x.shape[1]
    tile = _tile(d, height(plan), r)
    kernel = functools.partial(_outer, tile=tile, k=k)
    call = _call(kernel, (e, pl.cdiv(d, tile)), (e, r, d), jnp.float32, interpret)
    return call(*_read(plan), z.reshape(n * k, r), x)


def _outer(expert, pair, ends, z, x, total, *, tile, k):
    e, m = pl.program_id(0), pair.shape[0] // expert.shape[0]
    ranks, columns = jnp.arange(_power(z.shape[1])), pl.program_id(1) * tile + jnp.arange(tile)

    def step(block, sums):
        pairs = pair[pl.ds(block * m, m)]
        rows = _load(x, (), lax.div(pairs, jnp.int32(k)), columns)
        return sums + pltriton.dot(_load(z, (), pairs, ranks).astype(x.dtype), rows, trans_a=True)

    first = jnp.where(e == 0, 0, ends[jnp.maximum(e, 1) - 1])
    zero = jnp.zeros((ranks.shape[0], tile), jnp.float32)
    _store(total, (e,), ranks, columns, lax.fori_loop(first, ends[e], step, zero))


def _call(kernel, grid, shape, dtype, interpret):
    """A kernel that sees whole arrays."""
    params = pltriton.CompilerParams(num_warps=4, num_stages=3)
    out = jax.ShapeDtypeStruct(shape, dtype)
    return pl.pallas_call(kernel, out, grid=grid, compiler_params=params, interpret=interpret)


def _read(plan: Plan):
    """What kernels read of a plan."""
    return plan.expert, plan.pair, plan.ends


def _load(ref, lead, rows, columns):
    """Some rows and columns of the matrix at `lead`; zero beyond its sizes."""
    at, inside = _at(ref, lead, rows, columns)
    return pltriton.load(ref.at[at], mask=inside, other=0)


def _store(ref, lead, rows, columns, block):
    """Write some rows and columns of the matrix at `lead`; nothing beyond its sizes."""
    at, inside = _at(ref, lead, rows, columns)
    pltriton.store(ref.at[at], block.astype(ref.dtype), mask=inside)


def _at(ref, lead, rows, columns):
    height, width = ref.shape[-2:]
    inside = (rows < height)[:, None] & (columns < width)[None, :]
    return (*lead, rows[:, None], columns[None, :]), inside


def _power(size: int) -> int:
    """The power of two at or above a size, 16 at least."""
    return max(16, pl.next_power_of_2(size))


def _tile(width: int, m: int, r: int) -> int:
    """Columns of a tile: a power of two such that m rows and r rows of float32 fit one step."""
    fits = STAGE_BYTES // (4 * (m + _power(r)))
    return max(16, min(WIDEST, _power(width), 2 ** (fits.bit_length() - 1)))
