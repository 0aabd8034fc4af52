"""WEMoE over differences of full fine-tunes: the checks of its card, at one MLP and on a small base."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import world as worlds
from we_moe_case import arrays_of, close, constant, expert, hidden

from moejax.adapted import Adapted, prefix, run
from moejax.aggregation import delta
from moejax.contract import Fitted
from moejax.experts import bank as banks
from moejax.experts import lora
from moejax.experts.bank import Bank
from moejax.experts.delta import Delta
from moejax.experts.expert import Expert
from moejax.experts.pool import pool_of
from moejax.methods import best_single, own_expert, task_arithmetic
from moejax.methods.we_moe import METHOD, PATH, Config, adapt, routers
from moejax.models.block import slice_layers
from moejax.models.layers import MLP
from moejax.places import Lora
from moejax.site import sown
from moejax.train.work import Work
from moejax.types import NotApplicable, Weights

NOTHING = Bank({}, jnp.zeros(0, bool))


@pytest.fixture(params=["encoder", "decoder"])
def world(request):
    base = tiny.base(request.param)
    return base, tiny.deltas(base, *worlds.NAMES), worlds.batch(worlds.standard(request.param))


def with_embeddings(base, pool):
    """The pool, two of whose experts moved the embeddings too."""
    rng, leaf = np.random.default_rng(3), base.params["embed"]["embedding"]
    moved = {
        name: {"embed/embedding": rng.normal(size=leaf.shape).astype(np.float32)} for name in ("ann", "bob")
    }
    return replace(pool, rest=moved)


def merged_params(base, pool, weigh, embeddings=0.0):
    """theta_0 + sum_e w_e tau_e spelled out, w = weigh(path)."""
    params = jax.tree.map(np.array, base.params)
    for path, stack in pool.bank.sites.items():
        node = params
        for name in path.split("/"):
            node = node[name]
        w = np.asarray(weigh(path), np.float32)
        for layer, slot in enumerate(np.asarray(stack.slot)):
            if slot >= 0:
                leaf = "kernel" if "kernel" in node else "scale"
                for e in range(len(pool.names)):
                    node[leaf][layer] += (w[e] * stack.w[slot, e]).reshape(node[leaf].shape[1:])
                    if "bias" in node:
                        node["bias"][layer] += w[e] * stack.bias[slot, e]
    for moved in pool.rest.values():
        params["embed"]["embedding"] += np.float32(embeddings) * moved["embed/embedding"]
    return params


def bare(base, params, batch):
    return hidden(Adapted(base.model), {"params": params, "bank": NOTHING, "router": {}}, batch)


def in_mlp(one, other):
    return lambda path: one if path.startswith(f"{PATH}/") else other


def test_constant_weights_are_the_dense_merge_and_one_hot_ones_that_experts_mlps(world):
    base, pool, batch = world
    pool = with_embeddings(base, pool)
    for weights in ([0.7, -0.4, 1.3], [0, 1, 0], [0.3] * 3):
        found = hidden(adapt(Config(depth=0), base), arrays_of(base, pool, constant(base, weights)), batch)
        params = merged_params(base, pool, in_mlp(weights, [0.3] * 3), 0.3)
        close(found, bare(base, params, batch), atol=1e-4)
        assert np.abs(found - bare(base, base.params, batch)).max() > 0.1


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_it_starts_as_task_arithmetic_on_all_parameters(world, depth):
    base, pool, batch = world
    pool, config = with_embeddings(base, pool), Config(depth=depth, std=0.0)
    found = hidden(adapt(config, base), arrays_of(base, pool, routers(config, base, pool, 0)), batch)
    merged, settings = task_arithmetic.METHOD, task_arithmetic.Config(kind="delta")
    router = Fitted({"places": {}, "knobs": {"lambda": jnp.float32(0.3)}}, pool.names)
    arrays = merged.arrays(settings, base, pool, router)
    close(found, hidden(merged.adapt(settings, base), arrays, batch), atol=1e-4)
    close(found, bare(base, merged_params(base, pool, lambda path: [0.3] * 3, 0.3), batch), atol=1e-4)
    assert not arrays["bank"].sites


def test_the_worked_example_at_one_linear():
    # theta_0 = I, tau_1 = I, tau_2 = [[-1, 1], [1, -1]], w = (.4, .2): theta = [[1.2, .2], [.2, 1.2]]
    base = tiny.base("encoder")
    one = {"layers/mlp/up": (np.eye(2), np.array([[-1.0, 1.0], [1.0, -1.0]]))}
    experts = [
        Expert(name, {}, {}, deltas={("layers/mlp/up", 0): Delta(np.float32(w), np.zeros(2, np.float32))})
        for name, w in zip(("ann", "bob"), one["layers/mlp/up"], strict=True)
    ]
    bank = banks.on_device(pool_of(experts, base.sites, base.shapes, 1).bank)
    x = jnp.eye(2)[None]
    stack = bank.sites["layers/mlp/up"]
    found = x + delta.output(x, stack, jnp.int32(0), Weights(jnp.asarray([[0.4, 0.2]])))
    close(found, [[[1.2, 0.2], [0.2, 1.2]]], atol=1e-6)


def test_each_request_has_an_mlp_of_its_own(world):
    base, pool, batch = world
    config = Config(std=0.3)
    arrays = arrays_of(base, pool, routers(config, base, pool, 0))
    spied = {}

    def spy(site, next, x):
        y = next(x)
        site.sow("seen", {"x": x, "y": y})
        return y

    whole = adapt(config, base)

    def decide(site, next, x):
        return spy(site, lambda x: whole.places[0][1](site, next, x), x)

    found = jax.jit(
        lambda arrays: worlds_run(replace(whole, places=((PATH, decide), *whole.places[1:])), arrays, batch)
    )({name: arrays[name] for name in ("params", "bank", "router")})
    spied = jax.device_get(found)
    mlp = MLP(base.model.config.block)
    for layer in range(base.layers):
        w = spied["weights"][layer]
        assert np.abs(w - w[:1]).max() > 1e-3 and ((w < 0) | (w > 1)).any()
        for row in range(len(w)):
            params = merged_params(base, pool, lambda path, w=w, row=row: w[row])["layers"]["mlp"]
            mine = jax.tree.map(lambda leaf, layer=layer: leaf[layer], params)
            close(
                mlp.apply({"params": mine}, jnp.asarray(spied["x"][layer, row][None]))[0],
                spied["y"][layer, row],
                atol=1e-4,
            )


def worlds_run(adapted, arrays, batch):
    records = run(adapted, arrays, batch, record=True).records
    (seen,), (weights,) = sown(records, "seen").values(), sown(records, "weights").values()
    return {**seen, "weights": weights.values}


def test_zero_differences_are_the_base_and_order_changes_nothing(world):
    base, pool, batch = world
    config = Config(std=0.3)
    leaves = routers(config, base, pool, 0)
    before = hidden(adapt(config, base), arrays_of(base, pool, leaves), batch)
    quiet = hidden(adapt(config, base), arrays_of(base, worlds.silent(pool), leaves), batch)
    close(quiet, bare(base, base.params, batch), atol=1e-6)
    turned = np.array([2, 0, 1])
    moved = leaves | {"w2": leaves["w2"][:, turned], "b2": leaves["b2"][:, turned]}
    names = [pool.names[i] for i in turned]
    close(hidden(adapt(config, base), arrays_of(base, pool.take(names), moved), batch), before, atol=1e-4)
    assert np.abs(before - quiet).max() > 0.1


@pytest.mark.slow
def test_pads_and_the_batch_change_a_row_only_where_it_leaks(world):
    base, pool, batch = world
    leaves = routers(Config(std=0.3), base, pool, 0)
    arrays, one = arrays_of(base, pool, leaves), jax.tree.map(lambda leaf: leaf[:1], batch)
    for reduce, alike in (("example", True), ("batch", False)):
        adapted = adapt(Config(std=0.3, reduce=reduce), base)
        alone, among = hidden(adapted, arrays, one)[0], hidden(adapted, arrays, batch)[0]
        real = np.asarray(batch.mask[0])
        assert (np.abs(alone - among)[real].max() < 1e-4) == alike
        noise = batch._replace(tokens=jnp.where(batch.mask, batch.tokens, (batch.tokens + 5) % tiny.VOCAB))
        close(hidden(adapted, arrays, noise)[0][real], among[real], atol=1e-4)
    same = [hidden(adapt(Config(std=0.3, reduce=r), base), arrays, one) for r in ("example", "batch")]
    close(*same)


def test_loras_unmerged_are_their_products_as_differences(world):
    base, _, batch = world
    loras = [expert(base, name) for name in worlds.NAMES]
    dense = [
        one._replace(loras={}, deltas={site: Delta(lora.delta(part), np.zeros(part.b.shape[1], np.float32))
                                       for site, part in one.loras.items()})
        for one in loras
    ]  # fmt: skip
    pools = [pool_of(some, base.sites, base.shapes, base.layers) for some in (loras, dense)]
    leaves = routers(Config(std=0.3), base, pools[0], 0)
    adapted = adapt(Config(std=0.3), base)
    close(*(hidden(adapted, arrays_of(base, pool, leaves), batch) for pool in pools), atol=1e-4)


def test_only_the_mlps_go_with_the_model(world):
    base, pool, _ = world
    arrays = arrays_of(base, pool, constant(base, [0.3] * 3))
    assert arrays["bank"].sites and all(path.startswith(f"{PATH}/") for path in arrays["bank"].sites)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(arrays["bank"]))
    assert all(isinstance(stack.w, np.ndarray) for stack in pool.bank.sites.values())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_routers_alone_learn_and_the_entropy_falls(kind, tmp_path):
    world = worlds.standard(kind, "we_moe(delta)")
    grants, logged = worlds.grants(world, frozenset({"target_inputs"})), []
    config = Config(steps=20, batch=9, rate=0.05)
    before = jax.device_get((world.base.params, world.pool.bank))
    found = METHOD.fit(config, world.base, world.pool, grants, Work(tmp_path, log=logged.append))
    assert found.bank is None and not found.patch and set(found.router["places"]) == {PATH}
    for old, new in zip(
        jax.tree.leaves(before), jax.tree.leaves((world.base.params, world.pool.bank)), strict=True
    ):
        assert np.array_equal(old, new)
    losses = [line["loss"] for line in logged if "loss" in line]
    assert losses[-1] < losses[0] - 0.005


def test_upper_layers_alone_get_their_own_part():
    base = tiny.base("encoder")
    pool, batch = tiny.deltas(base, *worlds.NAMES), worlds.batch(worlds.standard("encoder"))
    upper = {path: stack._replace(w=stack.w[1:], bias=stack.bias[1:], scale=stack.scale[1:], present=stack.present[1:],
                                  slot=np.array([-1, 0], np.int32))
             for path, stack in pool.bank.sites.items() if len(stack.w) == 2}  # fmt: skip
    pool = replace(pool, bank=pool.bank._replace(sites=upper))
    whole = arrays_of(base, pool, routers(Config(std=0.3), base, pool, 0))
    cut = replace(base, params=slice_layers(base.params, 1, 2))
    top = arrays_of(cut, pool, whole["router"]["places"][PATH])
    given = batch._replace(prefix=prefix(base.model, base.params, batch, 1))
    adapted = adapt(Config(std=0.3), base)
    close(np.asarray(run(adapted, top, given).hidden), hidden(adapted, whole, batch), atol=1e-4)


@pytest.mark.slow
def test_the_oracle_and_the_best_single_expert_are_the_fine_tuned_models(world):
    base, pool, batch = world
    for e in range(3):
        params = merged_params(base, pool, lambda path, e=e: np.eye(3)[e])
        oracle = own_expert.METHOD.arrays(
            own_expert.Config("delta"), base, pool, Fitted({"places": {}}, pool.names)
        )
        rows = batch._replace(expert=jnp.full(4, e))
        found = hidden(own_expert.adapt(own_expert.Config("delta"), base), oracle, rows)
        close(found, bare(base, params, batch), atol=1e-4)
        moved, config = with_embeddings(base, pool), best_single.Config(kind="delta")
        router = Fitted({"model": {"expert": jnp.int32(e)}, "places": {}, "knobs": {}}, pool.names)
        arrays = best_single.arrays(config, base, moved, router)
        params["embed"]["embedding"] += moved.rest.get(pool.names[e], {}).get("embed/embedding", 0)
        close(hidden(best_single.adapt(config, base), arrays, batch), bare(base, params, batch), atol=1e-4)


def test_the_oracle_says_that_embeddings_cannot_be_routed():
    world = worlds.standard("encoder", "own_expert(delta)")
    pool = with_embeddings(world.base, world.pool)
    grants = worlds.grants(world, frozenset({"test_task"}))
    with pytest.raises(NotApplicable, match="expert ann changes embed/embedding, outside the layers"):
        own_expert.METHOD.fit(own_expert.Config("delta"), world.base, pool, grants, worlds.nowhere())


def test_differences_outside_the_mlps_alone_are_not_for_it(tmp_path):
    world = worlds.standard("encoder", "we_moe(delta)")
    sites = {p: s for p, s in world.pool.bank.sites.items() if not p.startswith(f"{PATH}/")}
    pool = replace(world.pool, bank=world.pool.bank._replace(sites=sites))
    with pytest.raises(NotApplicable, match="no expert adapts an MLP"):
        METHOD.fit(
            Config(), world.base, pool, worlds.grants(world, frozenset({"target_inputs"})), Work(tmp_path)
        )


def test_a_mode_that_differences_lack_is_refused(world):
    base, pool, batch = world
    arrays = {"params": base.params, "bank": banks.on_device(pool.bank), "router": {}}
    factor = Adapted(base.model, (("layers/*/*", Lora("factor", lambda site, x: Weights(jnp.ones(3)))),))
    with pytest.raises(ValueError, match="differences have no factors"):
        hidden(factor, arrays, batch)
