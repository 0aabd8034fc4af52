"""The three products of a plan's blocks on a TPU, in Pallas: one step of the grid is one block, whose expert is known.

The numbers of the experts are prefetched, so that the pipeline brings a block's own A or B straight from the bank.
The grid is as long as the number of blocks used, which is known at run time. Rows are brought into the order of the
plan before, and back after, by XLA.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int, Shaped

from moejax.aggregation.kernel_plan import Plan, height

BLOCK_BYTES = 2**21  # of one operand in VMEM, which holds two of each and is 16 MiB for a kernel by default


def shrink(
    x: Float[Array, "n d"], a: Float[Array, "s e r d"], slot: Int[Array, ""], plan: Plan, interpret: Any
) -> Float[Array, "n k r"]:
    """z[i, j] = A[slot, index[i, j]] x[i], in float32; d in tiles, added up in the block of z."""
    m, (r, d) = height(plan), a.shape[2:]
    tile = _tile(d, m, r)
    spec = pltpu.PrefetchScalarGridSpec(
        num_scalar_prefetch=2,
        grid=(plan.ends[-1], pl.cdiv(d, tile)),
        in_specs=[
            pl.BlockSpec((m, tile), lambda i, j, expert, slot: (i, j)),
            pl.BlockSpec((None, None, r, tile), lambda i, j, expert, slot: (slot[0], expert[i], 0, j)),
        ],
        out_specs=pl.BlockSpec((m, r), lambda i, j, expert, slot: (i, 0)),
    )
    shape = jax.ShapeDtypeStruct((plan.pair.shape[0], r), jnp.float32)
    call = pl.pallas_call(functools.partial(_shrink, d=d), shape, grid_spec=spec, interpret=interpret)
    return call(plan.expert, slot[None], _by_token(x, plan), _where_it_lies(a, interpret))[plan.place]


def _shrink(expert, slot, x, a, z, *, d):
    @pl.when(pl.program_id(1) == 0)
    def _():
        z[...] = jnp.zeros_like(z)

    left = d - pl.program_id(1) * x.shape[1]

    def inside(block):
        """The block, zero beyond the last column, where a tile that sticks out holds anything."""
        if d % x.shape[1] == 0:
            return block
        column = lax.broadcasted_iota(jnp.int32, block.shape, 1)
        return jnp.where(column < left, block.astype(jnp.float32), 0)

    rows, factor = (inside(ref[...]).astype(x.dtype) for ref in (x, a))
    z[...] += _dot(rows, factor, 1)


def expand(
    z: Float[Array, "n k r"],
    b: Float[Array, "s e r f"],
    slot: Int[Array, ""],
    plan: Plan,
    dtype: jnp.dtype,
    interpret: Any,
) -> Float[Array, "n f"]:
    """y[i] = sum_j z[i, j] B[slot, index[i, j]], of products in `dtype` added in float32; f in tiles."""
    m, (r, f) = height(plan), b.shape[2:]
    tile = _tile(f, m, r)
    spec = pltpu.PrefetchScalarGridSpec(
        num_scalar_prefetch=2,
        grid=(plan.ends[-1], pl.cdiv(f, tile)),
        in_specs=[
            pl.BlockSpec((m, r), lambda i, j, expert, slot: (i, 0)),
            pl.BlockSpec((None, None, r, tile), lambda i, j, expert, slot: (slot[0], expert[i], 0, j)),
        ],
        out_specs=pl.BlockSpec((m, tile), lambda i, j, expert, slot: (i, j)),
    )
    shape = jax.ShapeDtypeStruct((plan.pair.shape[0], f), dtype)
    call = pl.pallas_call(_expand, shape, grid_spec=spec, interpret=interpret)
    each = call(plan.expert, slot[None], _by_pair(z.astype(dtype), plan), _where_it_lies(b, interpret))[
        plan.place
    ]
    return jnp.sum(each, axis=1, dtype=jnp.float32).astype(dtype)


def _expand(expert, slot, z, b, y):
    y[...] = _dot(z[...], b[...].astype(z.dtype), 0).astype(y.dtype)


def outer(
    z: Float[Array, "n k r"], x: Float[Array, "n d"], plan: Plan, interpret: Any
) -> Float[Array, "e r d"]:
    """Of each expert, the sum over its pairs (i, j) of z[i, j] (x) x[i], in float32.

    An expert's blocks follow each other, and its sum stays in VMEM meanwhile. Nothing is written for an expert
    without a block: XLA puts the zeros there, as it reads the result.
    """
    m, g, e = height(plan), plan.expert.shape[0], plan.ends.shape[0]
    r, d = z.shape[2], x.shape[1]
    tile = _tile(d, m, r)
    spec = pltpu.PrefetchScalarGridSpec(
        num_scalar_prefetch=1,
        grid=(pl.cdiv(d, tile), plan.ends[-1]),
        in_specs=[
            pl.BlockSpec((None, r, m), lambda j, i, expert: (i, 0, 0)),
            pl.BlockSpec((m, tile), lambda j, i, expert: (i, j)),
        ],
        out_specs=pl.BlockSpec((None, r, tile), lambda j, i, expert: (expert[i], 0, j)),
    )
    shape = jax.ShapeDtypeStruct((e, r, d), jnp.float32)
    call = pl.pallas_call(_outer, shape, grid_spec=spec, interpret=interpret)
    turned = _by_pair(z.astype(x.dtype), plan).reshape(g, m, r).swapaxes(1, 2)  # r on the sublanes
    total = call(plan.expert, turned, _by_token(x, plan))
    return jnp.where((jnp.diff(plan.ends, prepend=0) > 0)[:, None, None], total, 0)


def _outer(expert, z, x, total):
    i = pl.program_id(1)

    @pl.when((i == 0) | (expert[i] != expert[jnp.maximum(i, 1) - 1]))
    def _():
        total[...] = jnp.zeros_like(total)

    total[...] += _dot(z[...], x[...], 0)


def _dot(left, right, axis):
    """left times right, or times right transposed (axis 1), added in float32."""
    return lax.dot_general(left, right, (((1,), (axis,)), ((), ())), preferred_element_type=jnp.float32)


def _tile(width: int, m: int, r: int) -> int:
    """Columns of a block: all, or as even a share of them as 128 lanes allow, so that m or r rows fit."""
    share = pl.cdiv(width, pl.cdiv(width * max(m, r) * 4, BLOCK_BYTES))
    return width if share == width else pl.cdiv(share, 128) * 128


def _where_it_lies(bank: Float[Array, "s e r d"], interpret: Any) -> Float[Array, "s e r d"]:
    """The bank, kept from XLA, which would bring one that fits into VMEM whole, all its slots and experts."""
    if interpret or not isinstance(bank, Tracer):
        return bank
    return pltpu.with_memory_space_constraint(bank, pltpu.HBM)


def _by_token(x: Shaped[Array, "n d"], plan: Plan) -> Shaped[Array, "gm d"]:
    """Rows of x in the order of the plan; zero in padding."""
    return jnp.take(x, plan.pair // plan.place.shape[1], axis=0, mode="fill", fill_value=0)


def _by_pair(z: Shaped[Array, "n k r"], plan: Plan) -> Shaped[Array, "gm r"]:
    """Rows of z in the order of the plan; zero in padding."""
    return jnp.take(z.reshape(-1, z.shape[2]), plan.pair, axis=0, mode="fill", fill_value=0)
