"""WEMoE: the checks and worked numbers of its card, at one MLP and on a small base."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import world as worlds
from stand_in import here, request
from we_moe_case import arrays_of, close, constant, hidden, some_pool

from moejax.adapted import Adapted
from moejax.contract import Fitted
from moejax.experts import bank as banks
from moejax.loss import entropy
from moejax.methods import task_arithmetic
from moejax.methods.we_moe import METHOD, PATH, Config, Decide, adapt, routers, scored
from moejax.places import LINEARS, Lora, Uniform
from moejax.train.work import Work
from moejax.types import NotApplicable, Weights


@pytest.fixture(params=["encoder", "decoder"])
def world(request):
    base = tiny.base(request.param)
    return base, some_pool(base), worlds.batch(worlds.standard(request.param))


def test_a_router_that_names_one_expert_gives_that_experts_mlps(world):
    base, pool, batch = world
    for e in range(3):
        found = hidden(
            adapt(Config(depth=0), base), arrays_of(base, pool, constant(base, np.eye(3)[e]), 0.0), batch
        )
        sites = {path: stack for path, stack in pool.bank.sites.items() if path.startswith(PATH)}
        alone = banks.take(pool.bank._replace(sites=sites), [e])
        one = Adapted(base.model, ((LINEARS, Lora("output", Uniform())),))
        close(found, hidden(one, {"params": base.params, "bank": alone, "router": {}}, batch))


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_it_starts_as_the_task_arithmetic_merge(world, depth):
    base, pool, batch = world
    config = Config(depth=depth, std=0.0)
    found = hidden(adapt(config, base), arrays_of(base, pool, routers(config, base, pool, 0)), batch)
    merged = task_arithmetic.METHOD
    router = Fitted({"places": {}, "knobs": {"lambda": jnp.float32(0.3)}}, pool.names)
    arrays = merged.arrays(merged.Config(), base, pool, router)
    close(found, hidden(merged.adapt(merged.Config(), base), arrays, batch))
    bare = hidden(Adapted(base.model), arrays, batch)
    assert np.abs(found - bare).max() > 0.1


def hand_site(w1, b1, w2, b2, mask=(True, True), weight=None, rows=1):
    leaves = {"w1": jnp.asarray(w1), "b1": jnp.asarray(b1), "w2": jnp.asarray(w2), "b2": jnp.asarray(b2)}
    batch = request(rows, len(mask), weight=weight)._replace(prompt=jnp.tile(jnp.asarray(mask), (rows, 1)))
    return here(PATH, (True,) * len(b2), leaves, batch)


def test_hand_example():
    # r(x) = W2 relu(x): tokens (.5, .1) and (.3, .3) of the worked example are the weights of two experts themselves
    site = hand_site(np.eye(2), np.zeros(2), np.eye(2), np.zeros(2))
    x = jnp.asarray([[[0.5, 0.1], [0.3, 0.3]]])
    close(scored(site.leaves, x), x, atol=1e-7)
    w = Decide("example").weigh(site, x)
    close(w, [[0.4, 0.2]], atol=1e-7)
    base, tau = np.eye(2), np.array([np.eye(2), [[-1, 1], [1, -1]]])
    theta = base + np.einsum("e,edf->df", np.asarray(w)[0], tau)
    close(theta, [[1.2, 0.2], [0.2, 1.2]], atol=1e-6)
    close(base + 0.4 * tau[0] + 0.2 * tau[1], theta, atol=1e-6)


def test_only_the_tokens_of_the_request_count():
    rng = np.random.default_rng(0)
    w1, w2, x = rng.normal(size=(3, 3)), rng.normal(size=(2, 3)), rng.normal(size=(1, 4, 3))
    b1, b2 = rng.normal(size=3), rng.normal(size=2)
    x = jnp.asarray(x, jnp.float32)

    def weigh(x, mask):
        site = hand_site(*(np.float32(leaf) for leaf in (w1, b1, w2, b2)), mask=mask)
        return np.asarray(Decide("example").weigh(site, x))

    two = weigh(x[:, :2], (True, True))
    close(weigh(x, (True, True, False, False)), two, atol=1e-6)
    close(weigh(jnp.concatenate([x[:, :2]] * 2, axis=1), (True,) * 4), two, atol=1e-6)
    assert np.abs(weigh(x, (True,) * 4) - two).max() > 0.1
    assert (two < 0).any() or (two > 1).any()  # no softmax


def test_the_leak_is_one_weight_for_the_batch():
    rng = np.random.default_rng(1)
    parts = [np.float32(rng.normal(size=shape)) for shape in ((3, 3), (3,), (2, 3), (2,))]
    x = jnp.asarray(rng.normal(size=(3, 2, 3)), jnp.float32)
    each = Decide("example").weigh(hand_site(*parts, rows=3), x)
    real = jnp.asarray([1.0, 1.0, 0.0])
    found = Decide("batch").weigh(hand_site(*parts, rows=3, weight=real), x)
    close(found, np.tile(np.mean(each[:2], axis=0), (3, 1)), atol=1e-6)
    assert np.abs(found - each).max() > 0.05
    one = hand_site(*parts, rows=1)
    close(Decide("batch").weigh(one, x[:1]), Decide("example").weigh(one, x[:1]), atol=1e-7)


def test_silent_experts_are_the_base_and_order_changes_nothing(world):
    base, pool, batch = world
    config = Config(std=0.3)
    leaves = routers(config, base, pool, 0)
    before = hidden(adapt(config, base), arrays_of(base, pool, leaves), batch)
    quiet = hidden(adapt(config, base), arrays_of(base, worlds.silent(pool), leaves), batch)
    close(quiet, hidden(Adapted(base.model), arrays_of(base, pool, leaves), batch), atol=0)
    turned = [2, 0, 1]
    moved = leaves | {"w2": leaves["w2"][:, np.array(turned)], "b2": leaves["b2"][:, np.array(turned)]}
    names = [pool.names[i] for i in turned]
    close(hidden(adapt(config, base), arrays_of(base, pool.take(names), moved), batch), before)
    drawn = routers(config, base, pool.take(names), 0)  # what belongs to an expert follows it
    close(drawn["w2"], moved["w2"], atol=0)
    assert np.abs(before - quiet).max() > 0.1


def test_no_update_is_multiplied_out_and_it_is_the_dense_merge_all_the_same():
    base = tiny.base("encoder")
    pool, weights = some_pool(base, paths=("layers/mlp/up", "layers/mlp/down")), np.float32([0.7, -0.4, 1.3])
    batch = worlds.batch(worlds.standard("encoder"))
    found = hidden(adapt(Config(depth=0), base), arrays_of(base, pool, constant(base, weights)), batch)
    params = jax.tree.map(np.array, base.params)
    for name in ("up", "down"):
        s = jax.device_get(pool.bank.sites[f"layers/mlp/{name}"])
        for layer in range(base.layers):
            slot = s.slot[layer]
            tau = np.einsum("e,e,erd,erf->df", weights, s.scale[slot], s.a[slot], s.b[slot])
            params["layers"]["mlp"][name]["kernel"][layer] += tau
    bare = {"params": params, "bank": pool.bank, "router": {}}
    close(found, hidden(Adapted(base.model), bare, batch))


def test_entropy_of_an_encoder_is_of_its_choices():
    fit, batch = worlds.fitted("encoder", "uniform"), worlds.batch(worlds.standard("encoder"))
    batch = batch._replace(choices=batch.choices.at[:, 3].set(-1))
    found, _ = jax.jit(entropy, static_argnums=0)(fit.adapted, fit.arrays, batch._replace(targets=None))
    p = np.exp(worlds.scores(fit, batch))
    close(p[:, 3], np.zeros(4), atol=1e-12)
    close(found, -np.sum(p[:, :3] * np.log(p[:, :3]), axis=1))
    assert -(0.9 * np.log(0.9) + 0.1 * np.log(0.1)) == pytest.approx(0.325083, abs=1e-6)


def row_by_token(batch, row):
    """One row as often as there are tokens, each time with another one as what follows."""
    many = [leaf if leaf is None or leaf.ndim < 2 else jnp.tile(leaf[row], (tiny.VOCAB, 1)) for leaf in batch]
    targets = jnp.tile(jnp.arange(tiny.VOCAB)[:, None], (1, batch.tokens.shape[1]))
    return type(batch)(*many)._replace(targets=targets)


def test_entropy_of_a_decoder_is_of_the_token_after_the_request():
    fit, batch = worlds.fitted("decoder", "uniform"), worlds.batch(worlds.standard("decoder"))
    found, _ = jax.jit(entropy, static_argnums=0)(fit.adapted, fit.arrays, batch)
    for row in range(4):
        at = int(np.flatnonzero(batch.prompt[row])[-1])
        one = row_by_token(batch, row)
        logp = worlds.scores(fit, one._replace(expert=None))[:, at]
        close(found[row], -np.sum(np.exp(logp) * logp), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_routers_alone_learn_and_the_entropy_falls(kind, tmp_path):
    base, config = tiny.base(kind), Config(steps=20, batch=9, rate=0.05)
    pool, world = some_pool(base), worlds.standard(kind)
    grants, logged = worlds.grants(world, frozenset({"target_inputs"})), []
    found = METHOD.fit(config, base, pool, grants, Work(tmp_path, log=logged.append))
    assert found.bank is None and not found.patch and grants.log == {"target_inputs"}
    start = routers(config, base, pool, 0)
    for name, leaf in found.router["places"][PATH].items():
        assert leaf.shape == start[name].shape and not np.allclose(leaf, start[name], atol=1e-4)
    losses = [line["loss"] for line in logged if "loss" in line]
    assert losses[-1] < losses[0] - 0.005
    d = base.model.config.width
    assert found.trained == base.layers * (d * d + d + d * len(pool.names) + len(pool.names))


def test_without_an_adapted_mlp_the_row_says_so(tmp_path):
    world = worlds.standard("encoder")
    pool = some_pool(world.base, paths=("layers/attn/q",))
    grants = worlds.grants(world, frozenset({"target_inputs"}))
    with pytest.raises(NotApplicable, match="no expert adapts an MLP"):
        METHOD.fit(Config(), world.base, pool, grants, Work(tmp_path))


def test_the_linears_of_an_mlp_share_its_weights(world):
    base, pool, batch = world
    config = Config(std=0.3)
    leaves = routers(config, base, pool, 0)
    spied = []

    def spy(site, x):
        assert site.outer is not None and site.outer.values.ndim == 2
        spied.append(site.path)
        return Weights(site.outer.values)

    whole = adapt(config, base)
    places = (whole.places[0], (f"{PATH}/*", Lora("output", spy, sow=False)), whole.places[2])
    close(
        hidden(replace(whole, places=places), arrays_of(base, pool, leaves), batch),
        hidden(whole, arrays_of(base, pool, leaves), batch),
        atol=0,
    )
    assert {"layers/mlp/up", "layers/mlp/down"} <= set(spied)
