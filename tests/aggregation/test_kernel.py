"""The kernels, interpreted, equal the sums spelled out in float64, in value and in gradient.

Interpreting says that the programs are right as they are written, and nothing of what a TPU or a GPU does with them.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental.pallas import tpu as pltpu

from moejax.aggregation import kernel, kernel_gpu, kernel_plan, kernel_tpu


class Case(NamedTuple):
    """Sizes."""

    n: int
    d: int
    f: int
    e: int
    k: int
    r: int


CASES = (
    Case(1, 5, 7, 3, 1, 1),  # one token
    Case(1, 4, 3, 1, 1, 2),  # one expert
    Case(5, 3, 6, 4, 4, 3),  # k = e
    Case(21, 9, 5, 3, 2, 17),  # pairs that fill no block
    Case(40, 6, 4, 2, 1, 16),  # more than a block for an expert
    Case(4, 33, 17, 40, 2, 5),  # most experts have no row
)
SLOTS, M = 2, 16
WHO = {"drawn": 99, "two experts": 2, "one expert": 1}


def drawn(case, seed, who="drawn", dtype=np.float32):
    """x, both banks, the chosen experts and the direction of the gradient."""
    rng = np.random.default_rng(seed)
    rand = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    banks = rand(SLOTS, case.e, case.r, case.d), rand(SLOTS, case.e, case.r, case.f)
    some = min(case.e, WHO[who])
    index = np.argsort(rng.random((case.n, max(some, case.k))), axis=-1)[:, : case.k] % some
    x, aim = (jnp.asarray(rand(case.n, width), dtype) for width in (case.d, case.f))
    return x, *banks, index.astype(np.int32), aim


@partial(jax.jit, static_argnums=(0, 7), compiler_options={"xla_backend_optimization_level": 0})
def ours(backend, x, a, b, index, aim, slot, interpret=True):
    """y = expand(shrink(x)) and the gradients of <aim, y> in x, a and b."""
    plan = kernel_plan.plan(index, a.shape[1], M)

    def mix(x, a, b):
        z = kernel.shrink(x, a, slot, plan, backend, interpret)
        return kernel.expand(z, b, slot, plan, x.dtype, backend, interpret)

    y, back = jax.vjp(mix, x, a, b)
    return y, *back(aim)


def spelled(x, a, b, index, aim):
    """Pair by pair, of one slot's factors."""
    x, a, b, aim = (np.asarray(leaf, np.float64) for leaf in (x, a, b, aim))
    y, dx, da, db = (np.zeros_like(leaf) for leaf in (aim, x, a, b))
    for i, j in np.ndindex(*index.shape):
        one = index[i, j]
        y[i] += a[one] @ x[i] @ b[one]
        dx[i] += b[one] @ aim[i] @ a[one]
        da[one] += np.outer(b[one] @ aim[i], x[i])
        db[one] += np.outer(a[one] @ x[i], aim[i])
    return y, dx, da, db


def compare(backend, given, slot, share, interpret=True):
    """Everything within a share of its largest value; the gradients of other slots are zero."""
    x, a, b, index, aim = given
    y, dx, *banks = ours(backend, x, a, b, index, aim, jnp.int32(slot), interpret)
    assert y.dtype == dx.dtype == x.dtype and [bank.dtype for bank in banks] == [a.dtype, b.dtype]
    for bank in banks:
        assert not np.any(np.asarray(bank[1 - slot]))
    wanted = spelled(x, a[slot], b[slot], index, aim)
    for found, exact in zip((y, dx, banks[0][slot], banks[1][slot]), wanted, strict=True):
        np.testing.assert_allclose(
            np.asarray(found, np.float64), exact, rtol=0, atol=share * max(1, np.abs(exact).max())
        )


@pytest.mark.parametrize("backend", kernel.BACKENDS)
@given(st.sampled_from(CASES), st.integers(0, 999), st.integers(0, SLOTS - 1), st.sampled_from(sorted(WHO)))
@settings(max_examples=24, deadline=None)
def test_value_and_gradient_equal_the_sum_spelled_out(backend, case, seed, slot, who):
    compare(backend, drawn(case, seed, who), slot, 2e-6)


@pytest.mark.parametrize("backend", kernel.BACKENDS)
def test_bfloat16_is_added_in_float32_and_the_banks_keep_their_dtype(backend):
    case = Case(40, 9, 5, 2, 1, 17)
    compare(backend, drawn(case, 0, dtype=jnp.bfloat16), 1, 0.02)


@pytest.mark.parametrize("backend", kernel.BACKENDS)
@pytest.mark.parametrize("programs", [1, 4, 99])
def test_wide_layers_are_taken_in_tiles_of_which_the_last_sticks_out(backend, programs, monkeypatch):
    """d = 300 in tiles of 128; on a GPU by one program, by two of which the second has less to do, or by three."""
    monkeypatch.setattr(kernel_tpu, "BLOCK_BYTES", 2**13)
    monkeypatch.setattr(kernel_gpu, "PROGRAMS", programs)
    assert kernel_tpu._tile(300, M, 3) == kernel_gpu._tile(300, M, 3) == 128
    ours.clear_cache()  # traces of other tiles
    case = Case(3, 300, 270, 2, 1, 3)
    compare(backend, drawn(case, 0), 0, 2e-6)


def test_on_a_tpu_nothing_is_read_that_was_not_written(monkeypatch):
    """Pallas' model of a TPU's memories: blocks come and go as there, and hold NaN until something is written."""
    monkeypatch.setattr(kernel_tpu, "BLOCK_BYTES", 2**13)
    case = Case(20, 256, 3, 3, 1, 2)
    compare("tpu", drawn(case, 0, "two experts"), 0, 2e-6, pltpu.InterpretParams(uninitialized_memory="nan"))


@pytest.mark.parametrize("backend", kernel.BACKENDS)
def test_other_slots_and_experts_that_are_not_chosen_are_never_read(backend):
    case = CASES[3]
    x, a, b, index, aim = drawn(case, 0, "two experts")
    for bank in (a, b):
        bank[0], bank[:, 2:] = np.nan, np.nan
    for found in ours(backend, x, a, b, index, aim, jnp.int32(1)):
        assert np.isfinite(np.asarray(found)).all()


@pytest.mark.parametrize("backend", kernel.BACKENDS)
def test_a_bad_row_spoils_only_its_own_expert(backend):
    x, z = np.ones((6, 5), np.float32), np.ones((6, 1, 2), np.float32)
    x[[0, 5]] = np.nan  # the first and the last, which padding might read
    plan = kernel_plan.plan(jnp.array([[2], [0], [0], [3], [3], [2]]), 5, M)
    total = np.asarray(kernel.outer(jnp.asarray(z), jnp.asarray(x), plan, backend, interpret=True))
    assert np.isnan(total[2]).all()
    for one, rows in {0: 2, 1: 0, 3: 2, 4: 0}.items():
        np.testing.assert_array_equal(total[one], np.full((2, 5), rows))


@pytest.mark.parametrize("backend", kernel.BACKENDS)
def test_they_work_in_a_scan_over_layers_that_are_computed_again_backward(backend):
    case = Case(6, 8, 8, 3, 2, 2)
    x, a, b, index, _ = drawn(case, 0)

    def through(layer):
        def run(x, a, b):
            step = jax.checkpoint(lambda x, slot: (x + jnp.tanh(layer(x, a, b, slot)), None))
            return jnp.sum(jax.lax.scan(step, x, jnp.array([1, 0, 1]))[0] ** 2)

        return jax.jit(jax.grad(run, argnums=(0, 1, 2)))(x, a, b)

    def grouped(x, a, b, slot):
        plan = kernel_plan.plan(jnp.asarray(index), case.e, M)
        z = kernel.shrink(x, a, slot, plan, backend, interpret=True)
        return kernel.expand(z, b, slot, plan, x.dtype, backend, interpret=True)

    def gathered(x, a, b, slot):
        return jnp.einsum("nkr,nkrf->nf", jnp.einsum("nd,nkrd->nkr", x, a[slot, index]), b[slot, index])

    for found, exact in zip(through(grouped), through(gathered), strict=True):
        np.testing.assert_allclose(found, exact, rtol=0, atol=1e-5 * np.abs(exact).max())
