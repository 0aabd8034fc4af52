"""From scores to weights: which experts are used, and how much of each.

An expert that is not `present` at a site never gets weight; a site where none is present gets zeros, not NaN.
Ties go to the lowest index.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from moejax.parallel.rowwise import rowwise
from moejax.types import Weights

FAR = -1e30  # stands in for -inf: a softmax over nothing stays finite


def masked_softmax(scores: Float[Array, "*n e"], present: Bool[Array, "*#n e"]) -> Float[Array, "*n e"]:
    """Softmax over the experts that are present; zero elsewhere, all zeros where none is."""
    present = jnp.broadcast_to(present, scores.shape)
    return jax.nn.softmax(jnp.where(present, scores.astype(jnp.float32), FAR), axis=-1) * present


def softmax(scores: Float[Array, "*n e"], present: Bool[Array, "e"]) -> Weights:
    """Dense weights: softmax over all experts that are present."""
    return Weights(masked_softmax(scores, _align(present, scores)))


def top_k(
    scores: Float[Array, "*n e"],
    present: Bool[Array, "e"],
    k: int,
    temperature: float | Float[Array, ""] = 1.0,
) -> Weights:
    """Top-k, then softmax over the chosen scores: w_j = exp(s_j / T) / sum_{i in K} exp(s_i / T).

    The choice is made before the division, so that it does not depend on T by rounding.
    Source: Arrow (2405.11157); a softmax BEFORE top-k is `softmax_top_k`.
    """
    values, index, chosen = _choose(scores, present, k)
    return Weights(masked_softmax(values / temperature, chosen), index)


def softmax_top_k(
    scores: Float[Array, "*n e"], present: Bool[Array, "e"], k: int, eps: float = 1e-6
) -> Weights:
    """Softmax over all experts, then top-k, then renormalise: w_j = p_j / (sum_{i in K} p_i + eps).

    Source: the released code of PHATGOOSE (2402.05859).
    """
    probabilities = masked_softmax(scores, _align(present, scores))
    _, index, chosen = _choose(scores, present, k)
    values = jnp.take_along_axis(probabilities, index, axis=-1) * chosen
    return Weights(values / (jnp.sum(values, axis=-1, keepdims=True) + eps), index)


def dense(weights: Weights, experts: int) -> Float[Array, "*n e"]:
    """The same weights spelled out over all experts, zero off the selection: [..., k] becomes [..., e]."""
    if weights.index is None:
        return weights.values
    chosen = jax.nn.one_hot(weights.index, experts, dtype=weights.values.dtype)
    return jnp.einsum("...k,...ke->...e", weights.values, chosen)


def one_hot(index: Int[Array, "*n"]) -> Weights:
    """All weight on one expert: index [*n] becomes weights [*n, 1]; a negative index means none."""
    return Weights((index[..., None] >= 0).astype(jnp.float32), jnp.maximum(index, 0)[..., None])


def _align(present: Bool[Array, "e"], scores: Float[Array, "*n e"]) -> Bool[Array, "*n e"]:
    return jnp.broadcast_to(present.reshape((1,) * (scores.ndim - 1) + present.shape), scores.shape)


def _choose(scores: Float[Array, "*n e"], present: Bool[Array, "e"], k: int):
    """The k best present experts: their scores, their numbers, and whether each place is really filled.

    -0.0 ties with 0.0: `lax.top_k` alone would put it behind.
    """
    scores, present = scores.astype(jnp.float32), _align(present, scores)
    order = jnp.where(present, jnp.where(scores == 0, 0.0, scores), FAR)
    some = min(k, scores.shape[-1])
    index = rowwise(lambda own, _: jax.lax.top_k(own, some)[1], jax.lax.stop_gradient(order))
    values, chosen = (jnp.take_along_axis(leaf, index, axis=-1) for leaf in (scores, present))
    return values, index, chosen
