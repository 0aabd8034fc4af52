"""The granularity study: grains agree where they must, and differ by averaging alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import world as worlds
from one_linear import PATH
from stand_in import here, request

from moejax.methods import average_activation
from moejax.methods.granularity import METHOD, Config, Score
from moejax.routing import scores, select
from moejax.types import AccessDenied

RNG = np.random.default_rng(0)
X, MEANS = RNG.normal(size=(2, 5, 4)).astype(np.float32), RNG.normal(size=(3, 4)).astype(np.float32)


def weights(grain, choose="dense", x=X, leaves=None, **fields):
    """Weights over three experts at one linear, spelled out."""
    site = here(PATH, [True] * 3, leaves or {"gate": MEANS}, request(2, 5, **fields))
    return select.dense(Score(grain, choose, 2)(site, jnp.asarray(x)), 3)


def test_an_example_is_weighed_by_the_mean_score_of_its_request():
    prompt = jnp.asarray([[True, True, True, False, False], [False, True, True, True, True]])
    each = scores.standardised_dot(jnp.asarray(X), jnp.asarray(MEANS))
    mean = jnp.stack([each[0, :3].mean(0), each[1, 1:].mean(0)])
    wanted = np.exp(mean) / np.exp(mean).sum(-1, keepdims=True)
    np.testing.assert_allclose(weights("example", prompt=prompt), wanted, rtol=0, atol=1e-6)


def test_equal_tokens_make_step_and_example_the_same():
    same = np.repeat(X[:, :1], 5, axis=1)
    for choose in ("dense", "topk", "top1"):
        step, example = weights("step", choose, same), weights("example", choose, same)
        np.testing.assert_allclose(step, np.repeat(example[:, None], 5, axis=1), rtol=0, atol=1e-6)


def test_selections_of_one_score():
    score = {"score": [0.3, 2.0, 1.0]}
    e = np.exp([0.3, 2.0, 1.0])
    np.testing.assert_allclose(weights("task", leaves=score), e / e.sum(), rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        weights("task", "topk", leaves=score), [0, e[1] / (e[1] + e[2]), e[2] / (e[1] + e[2])], atol=1e-6
    )
    np.testing.assert_array_equal(weights("task", "top1", leaves=score), [0, 1, 0])


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_a_task_is_weighed_by_the_mean_over_its_unlabelled_rows(kind):
    fit = worlds.fitted(kind, "granularity(task)")
    world, path = worlds.standard(kind), tiny.EVERYWHERE
    found = fit.arrays["router"]["places"][path]["score"]
    assert found.shape == (2, worlds.CAPACITY)
    # the first linear of the first layer sees what it sees whatever is routed: its score can be had from the base
    batch = jax.tree.map(jnp.asarray, tiny.as_batch(world.target.rows.train))
    base = worlds.fitted(kind, "base")
    x = base.adapted.model.apply(
        {"params": base.arrays["params"]}, batch.tokens, batch.mask, method=lambda m, t, k: m.start(t, k)[0]
    )
    if kind == "decoder":  # its blocks begin with a norm
        norm = base.arrays["params"]["layers"]["attn_norm"]["scale"][0]
        x = x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True) + base.adapted.model.config.eps) * norm[None, None]
    gate = fit.pool.stacked_extra("activation")[path][0]
    each, asked = scores.standardised_dot(x, gate), jnp.asarray(batch.prompt)[..., None]
    wanted = (jnp.sum(each * asked, 1) / jnp.sum(asked, 1)).mean(0)
    np.testing.assert_allclose(found[0, :3], wanted[:3], rtol=0, atol=1e-4)


def test_only_the_grain_of_a_task_reads_the_target():
    assert METHOD.needs(Config()) == METHOD.needs(Config("example")) == {"own"}
    assert METHOD.needs(Config("task")) == {"own", "target_inputs"}
    world, fit = worlds.standard("encoder"), worlds.fitted("encoder", "granularity(task)")
    with pytest.raises(AccessDenied, match="target_inputs"):
        METHOD.fit(fit.config, world.base, fit.pool, worlds.grants(world, frozenset()), worlds.nowhere())


def test_a_step_is_the_average_activation_router_but_for_its_softmax():
    """`average_activation` renormalises a softmax over all, with 1e-6; the chosen and their odds are the same."""
    fit = worlds.fitted("encoder", "granularity(top1)")
    batch = worlds.batch(worlds.standard("encoder"))
    config = average_activation.Config(k=1)
    base = worlds.standard("encoder").base
    other = average_activation.adapt(config, base)
    arrays = average_activation.METHOD.arrays(config, base, fit.pool, fit.router)
    ours = worlds.look(fit, batch)[1]
    theirs = worlds.program(arrays, batch, other)[1]
    for path, w in ours.items():
        np.testing.assert_allclose(w, theirs[path], rtol=0, atol=4e-6)
