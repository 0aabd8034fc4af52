"""The optimiser as a value: its schedule, its bound, and the size of its steps."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from moejax.train.optimiser import Optimiser, transformation


def sizes(optimiser, gradient=1.0):
    """How far each step moves a number whose gradient is always the same: with Adam, the rate."""
    make, value, moves = transformation(optimiser), jnp.float32(0), []
    state = make.init(value)
    for _ in range(optimiser.steps):
        change, state = make.update(jnp.float32(gradient), state, value)
        moves.append(-float(change))
        value = optax.apply_updates(value, change)
    return np.array(moves)


def test_the_rate_rises_then_falls_as_a_cosine():
    moves = sizes(Optimiser(0.1, 20, warmup=0.25))
    np.testing.assert_allclose(moves[:6], np.arange(6) / 5 * 0.1, rtol=1e-3)
    np.testing.assert_allclose(moves[5:], 0.05 * (1 + np.cos(np.pi * np.arange(15) / 15)), rtol=1e-3)


def test_the_rate_rises_then_stays():
    moves = sizes(Optimiser(0.1, 10, warmup=0.2, schedule="constant"))
    np.testing.assert_allclose(moves, [0, 0.05] + [0.1] * 8, rtol=1e-3)


def test_the_rate_rises_then_falls_in_a_line():
    moves = sizes(Optimiser(0.1, 10, warmup=0.2, schedule="linear"))
    np.testing.assert_allclose(moves, [0, 0.05, *(0.1 * np.arange(8, 0, -1) / 8)], rtol=1e-3, atol=1e-6)


def test_two_steps_are_enough_to_move():
    assert sizes(Optimiser(0.1, 2))[1] == pytest.approx(0.1, rel=1e-3)
    assert sizes(Optimiser(0.1, 1)).shape == (1,)


def test_decay_pulls_towards_zero():
    make = transformation(Optimiser(0.1, 10, warmup=0.0, schedule="constant", decay=0.5))
    value, state = jnp.float32(2), make.init(jnp.float32(2))
    for _ in range(2):
        change, state = make.update(jnp.float32(0), state, value)
    assert float(change) == pytest.approx(-0.1 * 0.5 * 2)


def test_the_norm_of_all_gradients_together_is_bounded():
    gradients = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    for clip, wanted in ((1.0, (0.6, 0.8)), (None, (3.0, 4.0)), (10.0, (3.0, 4.0))):
        make = transformation(Optimiser(0.1, 10, clip=clip))
        _, state = make.update(gradients, make.init(gradients), gradients)
        first = optax.tree.get(state, "mu")
        np.testing.assert_allclose([first["a"][0], first["b"][0]], 0.1 * np.array(wanted), rtol=1e-5)


def test_equal_values_are_one_transformation():
    assert transformation(Optimiser(0.1, 5)) is transformation(Optimiser(0.1, 5))
    assert transformation(Optimiser(0.1, 5)) is not transformation(Optimiser(0.1, 6))
