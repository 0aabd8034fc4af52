"""How likely a strong member beats a weak one on a query, and the threshold that spends a budget.

Source: Ong et al. 2024 (2406.18665) and its released code, RouteLLM.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from moejax.routing.bradley_terry import nearness, ratings
from moejax.routing.scores import unit
from moejax.types import PyTree

Index = int | Int[Array, "*#n"] | Int[np.ndarray, "*#n"]


def lead(model: PyTree, one: Index, other: Index, v: Float[Array, "*n q"]) -> Float[Array, "*n"]:
    """delta(one, q) - delta(other, q) = w_2 . ((v_one - v_other) * W_1 v_q), v_m = P_m / |P_m|; no bias anywhere.

    model: members [m, d], project [d, q], classify [d].
    """
    members = unit(model["members"])
    apart = jnp.broadcast_to(members[one] - members[other], (*v.shape[:-1], members.shape[1]))
    return (apart * (v @ model["project"].T)) @ model["classify"]


def factorised(model: PyTree, strong: Index, weak: Index, v: Float[Array, "b q"]) -> Float[Array, "b"]:
    """P(strong beats weak) = sigmoid of its lead."""
    return jax.nn.sigmoid(lead(model, strong, weak, v))


def ranked(model: PyTree, strong: Index, weak: Index, v: Float[Array, "b q"]) -> Float[Array, "b"]:
    """P(strong beats weak) by Bradley-Terry ratings of tiers, battles weighted by `nearness` to each query.

    model: queries [n, q] of unit length, wins [n, t, t] by tier, tiers [m].
    """
    weights = nearness(unit(v) @ model["queries"].T)
    theta = ratings(jnp.einsum("bn,nij->bij", weights, model["wins"]))
    strong, weak = model["tiers"][strong], model["tiers"][weak]
    return jax.nn.sigmoid(theta[:, strong] - theta[:, weak])


def folded(logits: Float[Array, "*n 3"]) -> Float[Array, "*n"]:
    """P(strong beats weak) = 1 - (p_tie + p_weak) of a classifier's (strong wins, tie, weak wins).

    A tie says that the weak member suffices. Source: the released code; the paper has one logit.
    """
    return 1.0 - jnp.sum(jax.nn.softmax(logits, axis=-1)[..., 1:], axis=-1)


def threshold(wants: Float[np.ndarray, "n"], share: float) -> float:
    """alpha, the (1 - share) quantile: this share of the sample, within 1 / n, wants the strong member that much."""
    return float(np.quantile(np.asarray(wants, np.float64), 1.0 - share))
