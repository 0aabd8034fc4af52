import jax
import jax.numpy as jnp
import numpy as np

from moejax.models.pooling import sentence


def test_sentence_is_the_normalised_mean_of_the_pooled_tokens():
    hidden = jnp.array([[[3.0, 0.0], [5.0, 8.0], [100.0, 1.0]]])
    found = sentence(hidden, jnp.array([[True, True, False]]))
    np.testing.assert_allclose(found, [[2**-0.5, 2**-0.5]], rtol=1e-6)


def test_sentence_of_nothing_is_zero_with_finite_gradient():
    hidden, none = jnp.ones((1, 2, 3)), jnp.zeros((1, 2), bool)
    assert (sentence(hidden, none) == 0).all()
    assert jnp.isfinite(jax.grad(lambda h: sentence(h, none).sum())(hidden)).all()


def test_sentence_of_half_precision_is_float32():
    assert sentence(jnp.ones((1, 2, 3), jnp.bfloat16), jnp.ones((1, 2), bool)).dtype == jnp.float32
