"""Arrow on one linear: the checks and worked numbers of its card."""

import jax.numpy as jnp
import numpy as np
import pytest
from one_linear import PATH, NoGrants, base_of, lora, pool, random_loras, run, sizes

from moejax.experts import lora as loras_
from moejax.methods.arrow import METHOD, Config

MODES = ("output", "factor")
X = np.random.default_rng(3).normal(size=(5, 4)).astype(np.float32)
HAND = [
    lora([[2, 0, 0], [0, 0.5, 0]], np.eye(2)),
    lora([[0, 0, 1], [0, 1, 0]], np.diag([3, 1])),
]


def arrow(loras, x, arrays=None, **config):
    """y, delta and weights."""
    d, f = sizes(loras)
    base, some = base_of(d, f), pool(loras, d, f)
    config = Config(**config)
    made = METHOD.arrays(config, base, some, METHOD.fit(config, base, some, NoGrants(), None))
    return run(METHOD.adapt(config, base), made | (arrays or {}), x)


def prototypes(loras):
    d, f = sizes(loras)
    base, some = base_of(d, f), pool(loras, d, f)
    made = METHOD.arrays(Config(), base, some, METHOD.fit(Config(), base, some, NoGrants(), None))
    return np.asarray(made["router"]["places"][PATH]["prototype"][0])


@pytest.mark.parametrize(
    ("mode", "delta"), [("output", (-3.848469, -0.865529)), ("factor", (-2.275573, -0.865529))]
)
def test_hand_example(mode, delta):
    _, added, w = arrow(HAND, (1, -1, -2), k=2, aggregation=mode)
    np.testing.assert_allclose(w, (0.268941, 0.731059), rtol=0, atol=1e-6)
    np.testing.assert_allclose(added, delta, rtol=0, atol=2e-6)
    _, _, w = arrow(HAND, (1, -1, -2), k=2, temperature=3**0.5, aggregation=mode)
    np.testing.assert_allclose(w, (0.359543, 0.640457), rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.abs(prototypes(HAND)), [[1, 0, 0], [0, 0, 1]], rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("k", [1, 4])
def test_one_expert_is_the_plain_lora(mode, k):
    one = random_loras(1)
    _, added, w = arrow(one, X, k=k, aggregation=mode)
    np.testing.assert_array_equal(w, np.ones((5, 1)))
    np.testing.assert_allclose(added, X @ loras_.delta(one[0]), rtol=0, atol=2e-6)


def test_the_sign_of_a_prototype_changes_nothing():
    some = random_loras(4)
    signs = np.array([1, -1, -1, 1])[None, :, None]
    flipped = {"places": {PATH: {"prototype": jnp.asarray(signs * prototypes(some), jnp.float32)}}}
    flipped["knobs"] = {"temperature": jnp.float32(1)}
    for one, other in zip(arrow(some, X), arrow(some, X, {"router": flipped}), strict=True):
        np.testing.assert_array_equal(one, other)


def test_another_basis_of_the_factors_changes_the_factor_mode_alone():
    some, turn = random_loras(3), np.array([[2.0, 1.0], [-1.0, 0.5]])
    first = lora(turn @ some[0].a, some[0].b.T @ np.linalg.inv(turn), some[0].alpha)
    turned = [first, *some[1:]]
    _, one, w = arrow(some, X, k=2)
    _, other, w_turned = arrow(turned, X, k=2)
    np.testing.assert_allclose(w_turned, w, rtol=0, atol=1e-5)
    np.testing.assert_allclose(other, one, rtol=0, atol=1e-4)
    _, one, _ = arrow(some, X, k=2, aggregation="factor")
    _, other, _ = arrow(turned, X, k=2, aggregation="factor")
    assert np.abs(other - one).max() > 0.1


def test_scaling_the_input_scales_the_logits():
    some, p = random_loras(4), None
    p = prototypes(some)
    _, _, w = arrow(some, -3 * X, k=4)
    z = np.exp(3 * np.abs(X.astype(np.float64) @ p.T))
    np.testing.assert_allclose(w, z / z.sum(-1, keepdims=True), rtol=0, atol=1e-5)
    _, _, small = arrow(some, X, k=1)
    _, _, large = arrow(some, 10 * X, k=1)
    np.testing.assert_array_equal(small, large)
    np.testing.assert_array_equal(np.argmax(small, -1), np.argmax(np.abs(X @ p.T), -1))


def test_an_input_orthogonal_to_all_prototypes_spreads_over_the_lowest_k():
    some = [lora([[1, 0, 0, 0]], [[i + 1.0]]) for i in range(4)]
    _, _, w = arrow(some, (0, 1, 2, 3), k=3)
    np.testing.assert_allclose(w, [1 / 3, 1 / 3, 1 / 3, 0], rtol=0, atol=1e-7)


def test_k_of_all_is_a_dense_softmax_and_permuted_experts_permute_weights():
    some = random_loras(4)
    _, added, w = arrow(some, X, k=4)
    z = np.exp(np.abs(X.astype(np.float64) @ prototypes(some).T))
    np.testing.assert_allclose(w, z / z.sum(-1, keepdims=True), rtol=0, atol=1e-6)
    order = [2, 0, 3, 1]
    _, again, turned = arrow([some[i] for i in order], X, k=4)
    np.testing.assert_allclose(turned, w[:, order], rtol=0, atol=1e-6)
    np.testing.assert_allclose(again, added, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_an_endless_temperature_gives_the_two_averages(mode):
    some = random_loras(3)
    _, added, _ = arrow(some, X, k=3, temperature=1e9, aggregation=mode)
    mean_a, mean_b = (np.mean([one[i] for one in some], axis=0) for i in (0, 1))
    expected = (
        1.5 * mean_a.T @ mean_b if mode == "factor" else np.mean([loras_.delta(one) for one in some], axis=0)
    )
    np.testing.assert_allclose(added, X @ expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_an_update_of_zero_has_no_direction_no_weight_and_no_nan(mode):
    d, f = 4, 3
    zero = lora(np.zeros((2, d)), np.zeros((f, 2)))
    y, added, w = arrow([zero, zero], X, aggregation=mode)
    np.testing.assert_array_equal(w, np.zeros((5, 2)))
    np.testing.assert_array_equal(y, X @ base_of(d, f).params[PATH]["kernel"])
    some = random_loras(2)
    _, alone, w_alone = arrow(some, X, aggregation=mode)
    _, added, w = arrow([some[0], zero, some[1]], X, aggregation=mode)
    np.testing.assert_array_equal(w, np.stack([w_alone[:, 0], np.zeros(5), w_alone[:, 1]], axis=1))
    np.testing.assert_allclose(added, alone, rtol=0, atol=1e-6)


def test_an_expert_that_does_not_adapt_the_linear_is_left_out_of_the_softmax():
    some = random_loras(2)
    _, alone, w_alone = arrow(some, X)
    _, added, w = arrow([None, *some], X)
    np.testing.assert_array_equal(w, np.concatenate([np.zeros((5, 1)), w_alone], axis=1))
    np.testing.assert_allclose(added, alone, rtol=0, atol=1e-6)


def test_each_expert_keeps_its_own_scale_which_never_moves_the_prototype():
    some = random_loras(2)
    scaled = [some[0], some[1]._replace(alpha=-7 * some[1].alpha)]
    np.testing.assert_allclose(prototypes(scaled), prototypes(some), rtol=0, atol=1e-7)
    _, added, w = arrow(scaled, X)
    _, _, before = arrow(some, X)
    np.testing.assert_allclose(w, before, rtol=0, atol=1e-7)
    expected = sum(np.asarray(w[:, e : e + 1]) * (X @ loras_.delta(one)) for e, one in enumerate(scaled))
    np.testing.assert_allclose(added, expected, rtol=0, atol=1e-4)


def test_it_reads_nothing_but_the_weights_of_the_experts():
    assert METHOD.needs(Config()) == frozenset()
    assert METHOD.card.extras == frozenset()
    assert METHOD.contribute is None
