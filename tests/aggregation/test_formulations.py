"""Every way of mixing experts equals the sum spelled out in float64, in value and in gradient."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moejax.aggregation import formulations
from moejax.aggregation.rule import choose
from moejax.experts import lora as loras
from moejax.experts.lora import Lora
from moejax.experts.stacks import Stack
from moejax.types import Weights

jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
MODES = {"output": formulations.output, "factor": formulations.factor}


class Case(NamedTuple):
    """Sizes, and whose weights they are: `lead` of e or of k chosen."""

    b: int
    t: int
    d: int
    f: int
    r: int
    e: int
    k: int | None
    lead: str


CASES = (
    Case(2, 3, 4, 5, 2, 3, None, ""),
    Case(2, 3, 5, 4, 3, 4, None, "b"),
    Case(2, 2, 3, 3, 1, 5, None, "bt"),
    Case(2, 3, 4, 5, 2, 4, 2, ""),  # the same k for every row
    Case(3, 2, 5, 4, 1, 4, 1, "b"),  # one expert a row
    Case(2, 4, 4, 3, 2, 5, 2, "b"),
    Case(3, 1, 4, 3, 2, 5, 3, "bt"),  # decoding: one token a row
    Case(2, 3, 3, 4, 2, 6, 2, "bt"),  # few tokens
    Case(3, 7, 3, 4, 2, 4, 2, "bt"),  # many tokens
    Case(2, 2, 3, 4, 2, 3, 3, "bt"),  # k = e
    Case(1, 2, 3, 4, 1, 3, 1, "bt"),
    Case(2, 20, 3, 4, 2, 3, 2, "bt"),  # several blocks an expert
    Case(1, 19, 3, 2, 3, 40, 1, "bt"),  # most experts have no token
)
SLOTS = 2


def drawn(case, seed, absent, ties):
    """x, a stack in which absent experts have scale 0, weights, and the direction of the gradient."""
    rng = np.random.default_rng(seed)
    rand = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    present = rng.random((SLOTS, case.e)) >= absent
    stack = Stack(
        rand(SLOTS, case.e, case.r, case.d), rand(SLOTS, case.e, case.r, case.f),
        (rng.normal(size=(SLOTS, case.e)) * present).astype(np.float32), present, np.array([1, -1, 0]),
    )  # fmt: skip
    lead = {"": (), "b": (case.b,), "bt": (case.b, case.t)}[case.lead]
    values = rand(*lead, case.k or case.e)
    values = np.round(values) if ties else values
    index = None
    if case.k:
        scores = np.round(rng.normal(size=(*lead, case.e)), 0 if ties else 9)
        index = np.argsort(-scores, axis=-1, kind="stable")[..., : case.k].astype(np.int32)
    return rand(case.b, case.t, case.d), stack, Weights(values, index), rand(case.b, case.t, case.f)


def spelled(mode, x, a, b, scale, values, index, e):
    """Token by token and expert by expert."""
    x, a, b, scale, values = (np.asarray(leaf, np.float64) for leaf in (x, a, b, scale, values))
    y = np.zeros((*x.shape[:2], b.shape[-1]))
    for at in np.ndindex(*x.shape[:2]):
        here = at[: values.ndim - 1]
        w = np.zeros(e)
        for j, value in enumerate(values[here]):
            w[j if index is None else index[here][j]] += value
        if mode == "output":
            for n in range(e):
                y[at] += w[n] * scale[n] * (x[at] @ a[n].T) @ b[n]
        else:
            y[at] = (x[at] @ sum(w[n] * a[n] for n in range(e)).T) @ sum(
                w[n] * scale[n] * b[n] for n in range(e)
            )
    return y


@partial(jit, static_argnames=("mode", "how"))
def ours(mode, x, stack, slot, weights, aim, how=None):
    """The mix, and the gradients of <aim, mix> in x, a, b, scale and the values."""

    def mix(x, a, b, scale, values):
        some = Stack(a, b, scale, stack.present, stack.slot)
        return MODES[mode](x, some, slot, Weights(values, weights.index), how)

    y, back = jax.vjp(mix, x, *stack[:3], weights.values)
    return y, back(aim)


@pytest.mark.parametrize("how", [None, "dense", "gather", "blocks"])
@pytest.mark.parametrize("mode", MODES)
@given(
    st.sampled_from(CASES),
    st.integers(0, 999),
    st.integers(0, SLOTS - 1),
    st.sampled_from([0, 0.4]),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_value_and_gradient_equal_the_sum_spelled_out(mode, how, case, seed, slot, absent, ties):
    x, stack, weights, aim = drawn(case, seed, absent, ties)
    y, slopes = ours(mode, x, stack, jnp.int32(slot), weights, aim, how)
    leaves = [x, stack.a[slot], stack.b[slot], stack.scale[slot], weights.values]
    found = spelled(mode, *leaves, weights.index, case.e)
    np.testing.assert_allclose(y, found, rtol=0, atol=1e-5 * max(1, np.abs(found).max()))
    slopes = [slope if i in (0, 4) else slope[slot] for i, slope in enumerate(slopes)]
    rng = np.random.default_rng(seed + 1)
    for i, slope in enumerate(slopes):
        way = rng.normal(size=slope.shape)
        ends = []
        for sign in (1, -1):  # of degree one, or two in the weights of `factor`: the difference is exact
            moved = [leaf + sign * way if i == j else leaf for j, leaf in enumerate(leaves)]
            ends.append(np.sum(spelled(mode, *moved, weights.index, case.e) * aim))
        expected, got = (ends[0] - ends[1]) / 2, np.sum(np.asarray(slope) * way)
        assert abs(got - expected) <= 2e-5 * max(1, np.abs(ends).max())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", [CASES[7], CASES[8], CASES[-1]])
def test_the_kernel_gives_the_same(mode, case):
    x, stack, weights, aim = drawn(case, 3, 0.4, True)
    asked = (mode, x, stack, jnp.int32(1), weights, aim)
    for found, wanted in zip(
        *(jax.tree.leaves(ours(*asked, how)) for how in ("kernel", "dense")), strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5 * max(1, np.abs(wanted).max()))


@pytest.mark.parametrize("how", [None, "blocks"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES)
def test_other_layers_and_experts_that_are_not_chosen_are_never_read(mode, case, how):
    x, stack, weights, aim = drawn(case, 0, 0, False)
    poison = np.full((SLOTS, case.e, 1, 1), np.nan, np.float32)
    poison[0] = 0
    by_rule = choose(case.b * case.t, case.e, case.k or case.e, "cpu") if case.lead == "bt" else None
    if case.k and case.k < case.e and (how or by_rule != "dense"):
        weights.index[...] = weights.index.reshape(-1, case.k)[0]  # the same few everywhere
        poison[0, np.setdiff1d(np.arange(case.e), weights.index)] = np.nan
        assert np.isnan(poison[0]).any()
    y, _ = ours(
        mode, x, stack._replace(a=stack.a + poison, b=stack.b + poison), jnp.int32(0), weights, aim, how
    )
    assert np.isfinite(y).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", [CASES[1], CASES[5]])
def test_the_mix_has_the_dtype_of_the_input(mode, case):
    x, stack, weights, aim = drawn(case, 0, 0, False)
    exact, _ = ours(mode, x, stack, jnp.int32(0), weights, aim)
    x, aim = (jnp.asarray(leaf, jnp.bfloat16) for leaf in (x, aim))
    found, _ = ours(mode, x, stack, jnp.int32(0), weights, aim)
    assert found.dtype == jnp.bfloat16
    assert np.abs(found.astype(jnp.float32) - exact).max() < 0.05 * np.abs(exact).max()


@pytest.mark.parametrize("mode", MODES)
def test_permuted_experts_with_permuted_weights_give_the_same_mix(mode):
    x, stack, weights, aim = drawn(CASES[2], 1, 0.3, False)
    order = np.array([3, 0, 4, 2, 1])
    turned = Stack(*(leaf[:, order] for leaf in stack[:4]), slot=stack.slot)
    one, _ = ours(mode, x, stack, jnp.int32(1), weights, aim)
    other, _ = ours(mode, x, turned, jnp.int32(1), Weights(weights.values[..., order]), aim)
    np.testing.assert_allclose(other, one, rtol=0, atol=1e-5)


def stacked(*some: Lora) -> Stack:
    a, b = (jnp.stack([jnp.asarray(one[i], jnp.float32) for one in some])[None] for i in (0, 1))
    scale = jnp.asarray([[loras.scale(one) for one in some]], jnp.float32)
    return Stack(a, b, scale, jnp.ones(scale.shape, bool), jnp.array([0]))


@jit
def mixed(stack, x, w):
    """Both modes, task weights."""
    return {mode: mix(x, stack, jnp.int32(0), Weights(w)) for mode, mix in MODES.items()}


def test_rank_one_numbers_products_against_factors():
    pair = [
        Lora(np.full((1, 1), a, np.float32), np.full((1, 1), b, np.float32), 1.0) for a, b in ((2, 1), (1, 3))
    ]
    found = mixed(stacked(*pair), jnp.ones((1, 1, 1)), jnp.array([0.5, 0.5]))
    assert float(found["output"][0, 0, 0]) == pytest.approx(2.5, abs=1e-6)
    assert float(found["factor"][0, 0, 0]) == pytest.approx(3.0, abs=1e-6)
    assert float(loras.delta(loras.merge(pair, (0.5, 0.5)))[0, 0]) == pytest.approx(2.5, abs=1e-6)


def random_lora(seed, r=2, d=4, f=3, alpha=3.0):
    rng = np.random.default_rng(seed)
    return Lora(rng.normal(size=(r, d)).astype(np.float32), rng.normal(size=(r, f)).astype(np.float32), alpha)


INPUT = np.random.default_rng(9).normal(size=(2, 3, 4)).astype(np.float32)


def test_one_expert_with_weight_one_is_itself_and_weight_zero_is_nothing():
    one = random_lora(0)
    for w, expected in ((1.0, INPUT @ loras.delta(one)), (0.0, np.zeros((2, 3, 3)))):
        for found in mixed(stacked(one), INPUT, jnp.array([w])).values():
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * w)


def test_equal_experts_average_to_themselves_in_both_modes():
    one = random_lora(0)
    for found in mixed(stacked(one, one, one), INPUT, jnp.full(3, 1 / 3)).values():
        np.testing.assert_allclose(found, INPUT @ loras.delta(one), rtol=0, atol=2e-6)


def test_merge_is_the_exact_sum_of_products_with_a_negative_weight_and_other_ranks():
    some, w = [random_lora(1), random_lora(2, r=1, alpha=5.0), random_lora(3, r=3)], (0.5, -0.3, 0.2)
    expected = sum(v * loras.delta(one).astype(np.float64) for v, one in zip(w, some, strict=True))
    merged = loras.merge(some, w)
    assert loras.rank(merged) == 6
    np.testing.assert_allclose(loras.delta(merged), expected, rtol=0, atol=1e-6)
    turned = loras.merge(some[::-1], w[::-1])
    np.testing.assert_allclose(loras.delta(turned), expected, rtol=0, atol=1e-6)
    nothing = loras.merge(some, (0.0, 0.0, 0.0))
    np.testing.assert_array_equal(loras.delta(nothing), np.zeros((4, 3)))
