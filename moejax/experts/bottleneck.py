"""One bottleneck adapter: u(h) = scale (act(h A^T + a_bias) B + b_bias), A and B [r, d], numpy float32; no residual.

It stands after a sub-layer (Houlsby: h is what attention or MLP gives) or at the join that closes it (Pfeiffer: h is
the sub-layer's output with residual and norm). Which of the two, the path of its site says: `layers/mlp` is after
the MLP, `layers/mlp_join` at its join.
"""

from collections.abc import Callable
from functools import partial
from math import sqrt
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from moejax.types import PRNGKey

ACTS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_new": partial(jax.nn.gelu, approximate=True),
    "swish": jax.nn.silu,
    "tanh": jnp.tanh,
    "leakyrelu": jax.nn.leaky_relu,
}
"""Non-linearities by AdapterHub's names; a stack holds their places in this order."""


class Bottleneck(NamedTuple):
    """The factors, biases, non-linearity and scale.

    a [r, d], a_bias [r] are AdapterHub's `adapter_down.0`; b [r, d] is the transpose of its `adapter_up.weight`.
    """

    a: np.ndarray
    a_bias: np.ndarray
    b: np.ndarray
    b_bias: np.ndarray
    act: str = "relu"
    scale: float = 1.0


def activate(z: Float[Array, "*n r"], act: Int[Array, "*n"]) -> Float[Array, "*n r"]:
    """Each of n with its own non-linearity, given by its place in `ACTS`."""
    act = act[..., None]
    return jnp.select([act == i for i in range(len(ACTS))], [one(z) for one in ACTS.values()])


def apply(one: Bottleneck, h: Float[np.ndarray, "*n d"]) -> Float[np.ndarray, "*n d"]:
    """u(h) of one adapter."""
    z = np.asarray(ACTS[one.act](jnp.asarray(h @ one.a.T + one.a_bias)))
    return np.float32(one.scale) * (z @ one.b + one.b_bias)


def norm(one: Bottleneck) -> float:
    """Frobenius norm of scale A^T B, what is left of the adapter without its non-linearity and biases."""
    a, b = one.a.astype(np.float64), one.b.astype(np.float64)
    return abs(one.scale) * sqrt(max(float(np.sum((a @ a.T) * (b @ b.T))), 0.0))


def init(key: PRNGKey, d: int, rank: int, act: str = "relu") -> Bottleneck:
    """Both factors N(0, 0.02^2), biases 0, as adapter-hub/adapters begins."""
    a, b = 0.02 * np.asarray(jax.random.normal(key, (2, rank, d)), np.float32)
    return Bottleneck(a, np.zeros(rank, np.float32), b, np.zeros(d, np.float32), act)
