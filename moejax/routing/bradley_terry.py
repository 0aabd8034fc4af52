"""Bradley-Terry ratings of battles, weighted by how near each battle's query is, and tiers of the rated.

P(a beats b) = sigmoid(theta_a - theta_b); Elo = 1000 + 400 theta / ln 10. Ratings have mean 0.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

ROUNDS = 40  # of Newton's method; far more than it takes
RIDGE = 1e-7  # of the mean number of battles: keeps one who never lost finite
STEP = 4.0  # the most that a rating moves in a round


@jax.jit
def ratings(wins: Float[Array, "*n m m"]) -> Float[Array, "*n m"]:
    """theta, the maximum likelihood of `wins[a, b]`, how often a beat b (a tie is half a win for each).

    Source: Ong et al. 2024 (2406.18665): their logistic regression without intercept or penalty.
    """
    every = wins.reshape(-1, *wins.shape[-2:])
    return jax.vmap(_ratings)(every).reshape(wins.shape[:-1])


def _ratings(wins: Float[Array, "m m"]) -> Float[Array, "m"]:
    battles = wins + wins.T
    each, m = jnp.mean(jnp.sum(battles, axis=-1)), len(wins)
    small, even = RIDGE * each + 1e-30, each / m + 1e-30  # `even` holds the mean, which nothing else does

    def better(theta: Float[Array, "m"], _: None) -> tuple[Float[Array, "m"], None]:
        p = jax.nn.sigmoid(theta[:, None] - theta[None])
        slope = jnp.sum(wins - battles * p, axis=1) - small * theta
        bend = battles * p * (1 - p)
        curve = jnp.diag(jnp.sum(bend, axis=1) + small) - bend + even
        return theta + jnp.clip(jnp.linalg.solve(curve, slope), -STEP, STEP), None

    theta, _ = jax.lax.scan(better, jnp.zeros(m), length=ROUNDS)
    return theta - jnp.mean(theta)


def nearness(cosine: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
    """Weights 10^(1 + s_i / max_j s_j) of training queries by their cosine s_i to a query.

    Source: Ong et al. 2024, section 4.2, with the maximum of the released code, over the training queries.
    """
    most = jnp.max(cosine, axis=-1, keepdims=True)
    return 10.0 ** (1.0 + cosine / jnp.where(most == 0, 1.0, most))


def tiers(scores: Float[np.ndarray, "m"], count: int) -> Int[np.ndarray, "m"]:
    """The tier of each, 0 the best: `count` neighbouring groups with the least sum of variances within them.

    Where there are no more than `count`, each is a tier of its own. Source: the released code of RouteLLM.
    """
    best = np.argsort(-scores, kind="stable")
    ordered, m, count = scores[best], len(scores), min(count, len(scores))
    cost = {
        (0, 0): (0.0, 0)
    }  # (how many are placed, in how many tiers) -> (sum of variances, start of the last)
    for t in range(1, count + 1):
        for end in range(t, m + 1):
            ways = [
                (cost[start, t - 1][0] + float(np.var(ordered[start:end])), start)
                for start in range(t - 1, end)
                if (start, t - 1) in cost
            ]
            cost[end, t] = min(ways)
    found, end = np.zeros(m, np.int32), m
    for t in range(count, 0, -1):
        start = cost[end, t][1]
        found[best[start:end]] = t - 1
        end = start
    return found
