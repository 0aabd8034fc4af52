"""One LoRA: scale, norm, exact merge and low-rank compression."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moejax.experts import lora
from moejax.experts.lora import Lora


def drawn(seed, r, d=6, f=5, alpha=8.0, rslora=False):
    rng = np.random.default_rng(seed)
    a, b = (rng.normal(size=(r, n)).astype(np.float32) for n in (d, f))
    return Lora(a, b, alpha, rslora)


def test_scale_is_alpha_over_rank_or_over_its_root():
    assert lora.scale(drawn(0, 4, alpha=8.0)) == 2.0
    assert lora.scale(drawn(0, 4, alpha=8.0, rslora=True)) == 4.0


def test_init_is_silent_and_of_the_stated_variance():
    one = lora.init(jax.random.key(0), d=400, f=3, rank=64, alpha=16, rslora=True)
    assert one.a.shape == (64, 400) and one.b.shape == (64, 3) and (one.alpha, one.rslora) == (16.0, True)
    assert one.a.dtype == one.b.dtype == np.float32
    assert not one.b.any()
    assert float(one.a.var()) == pytest.approx(1 / 400, rel=0.05)
    assert lora.norm(one) == 0.0


@given(st.integers(0, 99), st.integers(1, 9), st.floats(-9, 9))
@settings(max_examples=25, deadline=None)
def test_norm_is_that_of_the_dense_delta(seed, r, alpha):
    one = drawn(seed, r, alpha=alpha)
    assert lora.norm(one) == pytest.approx(float(np.linalg.norm(lora.delta(one))), rel=1e-4, abs=1e-6)


@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.floats(0.5, 9), st.booleans(), st.floats(-2, 2)),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=25, deadline=None)
def test_merge_is_the_exact_weighted_sum_of_products(parts):
    loras = [drawn(i, r, alpha=alpha, rslora=rs) for i, (r, alpha, rs, _) in enumerate(parts)]
    weights = [w for *_, w in parts]
    merged = lora.merge(loras, weights)
    expected = sum(w * lora.delta(one) for one, w in zip(loras, weights, strict=True))
    assert lora.rank(merged) == sum(r for r, *_ in parts) and lora.scale(merged) == 1.0
    np.testing.assert_allclose(lora.delta(merged), expected, rtol=1e-4, atol=1e-4)


def test_merge_of_rank_one_by_hand():
    # A = 2, 1; B = 1, 3; w = .5, .5: 0.5 * 2 + 0.5 * 3 = 2.5
    pair = [Lora(np.float32([[2]]), np.float32([[1]]), 1.0), Lora(np.float32([[1]]), np.float32([[3]]), 1.0)]
    assert lora.delta(lora.merge(pair, [0.5, 0.5])).item() == 2.5
    assert lora.delta(lora.merge(pair, [0.5, -0.5])).item() == -0.5


def test_merge_wants_one_weight_a_lora():
    with pytest.raises(ValueError, match="one weight a LoRA"):
        lora.merge([drawn(0, 2)], [0.5, 0.5])
    with pytest.raises(ValueError, match="0 LoRAs"):
        lora.merge([], [])


@pytest.mark.parametrize("r", [1, 3, 5, 9])
def test_compress_states_the_best_error(r):
    whole = lora.merge([drawn(i, 3) for i in range(3)], [1.0, 0.7, -0.4])  # rank 9 of a 6 x 5 matrix
    small, error = lora.compress(whole, r)
    dense = lora.delta(whole)
    values = np.linalg.svd(dense, compute_uv=False)
    best = np.linalg.norm(values[r:]) / np.linalg.norm(values)
    got = np.linalg.norm(lora.delta(small) - dense) / np.linalg.norm(dense)
    assert lora.rank(small) == min(r, 5)
    assert error == pytest.approx(best, abs=1e-6) and got == pytest.approx(best, abs=1e-6)
    assert lora.scale(small) == 1.0 and small.a.dtype == small.b.dtype == np.float32


def test_compress_of_nothing_has_no_error():
    one = lora.init(jax.random.key(0), 6, 5, rank=2, alpha=4)
    small, error = lora.compress(one, 1)
    assert error == 0.0 and not lora.delta(small).any()
