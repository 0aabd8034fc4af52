"""How well each expert fits an activation: the score functions of the routers."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def unit(x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    """x / |x|; zero, with a zero gradient, where x is zero."""
    square = jnp.sum(x**2, axis=-1, keepdims=True)
    return x * jnp.where(square > 0, jnp.where(square > 0, square, 1.0) ** -0.5, 0.0)


def standardise(x: Float[Array, "*n d"], eps: float = 1e-5) -> Float[Array, "*n d"]:
    """Layer normalisation without affine: (x - mean) / sqrt(var + eps), biased variance, in float32.

    Source: PHATGOOSE (2402.05859), section 3; eps as in the released code.
    """
    x = x.astype(jnp.float32)
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    return centred / jnp.sqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + eps)


def standardised_dot(x: Float[Array, "*n d"], gates: Float[Array, "e d"]) -> Float[Array, "*n e"]:
    """LN(x) . LN(v_e) / sqrt(d): how much the standardised input points along each standardised gate.

    |score| <= sqrt(d). Unchanged when a constant is added to x or to a gate, or either is scaled by c > 0.
    Source: PHATGOOSE (2402.05859), section 3.
    """
    scale = jnp.sqrt(jnp.float32(x.shape[-1]))
    return jnp.einsum("...d,ed->...e", standardise(x), standardise(gates)) / scale


def absolute_projection(x: Float[Array, "*n d"], prototypes: Float[Array, "e d"]) -> Float[Array, "*n e"]:
    """|x . p_e|: sign-free, since the sign of a singular vector is arbitrary; x is not normalised.

    Source: Arrow (2405.11157), section 4.
    """
    return jnp.abs(jnp.einsum("...d,ed->...e", x.astype(jnp.float32), prototypes.astype(jnp.float32)))
