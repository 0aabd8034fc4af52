"""MoLE: the checks and worked numbers of its card on a stand-in block, and blocks of a small base by brute force."""

from dataclasses import replace
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import world as worlds
from stand_in import Here, here, request

from moejax.adapted import run
from moejax.contract import Fitted
from moejax.experts.pool import pool_of
from moejax.loss import row_loss
from moejax.methods.mole import METHOD, RATE, Config, Gate, Loss, Mixed, Share, adapt, normalise, unbalance
from moejax.models.stream import tile
from moejax.routing import select
from moejax.site import Inside, sown
from moejax.train.overlay import overlay
from moejax.train.work import Work
from moejax.types import Batch, UserError, Weights

IDENTITY, CORNER = np.eye(2, dtype=np.float32), np.array([[2, 0], [0, 0]], np.float32)


def at(gate, log_tau=0.0, present=None):
    """A block over one request of two tokens, with a gate in hand."""
    present = [True] * gate.shape[-1] if present is None else present
    return here("block", present, {"gate": gate, "log_tau": log_tau}, request(1, 2), "block/linear")


def outputs(*each):
    """What the experts put out, [b, e, t, d]."""
    return jnp.asarray(np.stack(each), jnp.float32)[None]


def block(bare, each):
    """The `next` of a block: row copies in, the outputs of the experts that they wear out."""

    def following(x, *, outer, copies):
        worn = np.where(np.asarray(outer.values[:, 0]) > 0, np.asarray(outer.index[:, 0]), -1)
        assert len(worn) == copies * len(x)
        return jnp.stack([jnp.asarray(bare if i < 0 else each[i], jnp.float32) for i in worn])

    return following


def hand_gate():
    e = np.zeros((8, 2))
    e[0, 0] = e[4, 1] = 1
    return e.reshape(2, 4, 2)


@pytest.mark.parametrize(
    ("norm", "tau", "wanted"),
    [
        ("l2", 1, (0.399332, 0.600668)),
        ("l2", 0.5, (0.306508, 0.693492)),
        ("layernorm", 1, (0.195573, 0.804427)),
    ],
)
def test_hand_example(norm, tau, wanted):
    site, each = at(hand_gate(), np.log(tau)), (IDENTITY, CORNER)
    gate = Gate("paper", norm)
    np.testing.assert_allclose(gate(site, outputs(*each))[0], wanted, rtol=0, atol=1e-6)
    y = Mixed(gate, literal=True)(site, block(np.full((2, 2), 0.5), each), jnp.zeros((1, 2, 2)))
    np.testing.assert_allclose(y[0], 0.5 + wanted[0] * IDENTITY + wanted[1] * CORNER, rtol=0, atol=2e-6)
    if (norm, tau) == ("l2", 1):
        np.testing.assert_allclose(y[0], [[2.100668, 0.5], [0.5, 0.899332]], rtol=0, atol=1e-6)


def test_normalisations_of_the_hand_example():
    y, all_of = outputs(IDENTITY, CORNER).reshape(1, 2, 4), jnp.ones(2, bool)
    np.testing.assert_allclose(normalise(y, all_of, "l2")[0, :, 0], (0.408248, 0.816497), rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        normalise(y, all_of, "layernorm")[0, :, 0], (0.707100, 2.121299), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("mode", ["pooled", "token", "paper"])
def test_a_gate_of_zeros_is_uniform_and_balanced(mode):
    for e in (2, 3):
        xi = 4 if mode == "paper" else 2
        site = at(np.zeros((e, xi, e)))
        given = Gate(mode, "layernorm")(site, outputs(*np.random.default_rng(0).normal(size=(e, 2, 2))))
        np.testing.assert_allclose(given, np.full(given.shape, 1 / e), rtol=0, atol=1e-7)
        np.testing.assert_allclose(unbalance([site.found["share"]]), e * np.log(e), rtol=0, atol=1e-5)
    assert 2 * np.log(2) == pytest.approx(1.386294, abs=1e-6)


@pytest.mark.parametrize(
    ("blocks", "wanted"),
    [([(0.8, 0.2), (0.6, 0.4)], 1.560648), ([(0.68, 0.16, 0.16)], 4.050825), ([(1 / 3,) * 3], 3.295837)],
)
def test_balance_is_of_the_mean_over_blocks(blocks, wanted):
    shares = [Share(3 * jnp.asarray(g), jnp.float32(3), jnp.ones(len(g), bool)) for g in blocks]
    np.testing.assert_allclose(unbalance(shares), wanted, rtol=0, atol=1e-6)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *shares)  # as a scan over layers stacks them
    nobody = Share(jnp.zeros_like(shares[0].total), jnp.float32(0), jnp.zeros(len(blocks[0]), bool))
    np.testing.assert_allclose(unbalance([stacked, nobody]), wanted, rtol=0, atol=1e-6)


def test_a_mask_takes_experts_out_without_training():
    kept = select.softmax(jnp.log(jnp.asarray([[0.5, 0.3, 0.2]])), jnp.asarray([True, True, False])).values
    np.testing.assert_allclose(kept[0], (0.625, 0.375, 0), rtol=0, atol=1e-6)
    rng = np.random.default_rng(1)
    gate, y = rng.normal(size=(3, 2, 3)), rng.normal(size=(3, 2, 2))
    two = Gate("pooled", "layernorm")(at(gate[:2, :, :2]), outputs(*y[:2]))
    masked = Gate("pooled", "layernorm")(at(gate, present=[True, True, False]), outputs(*y))
    np.testing.assert_allclose(masked[0], [*two[0], 0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", ["layernorm", "l2"])
@pytest.mark.parametrize("mode", ["pooled", "token", "paper"])
def test_scale_changes_nothing_and_a_permutation_permutes(mode, norm):
    rng = np.random.default_rng(2)
    gate, y = rng.normal(size=(3, 4 if mode == "paper" else 2, 3)), rng.normal(size=(3, 2, 2))
    weigh, turned = Gate(mode, norm), [2, 0, 1]
    before = weigh(at(gate), outputs(*y))
    np.testing.assert_allclose(weigh(at(gate), outputs(*(30 * y))), before, rtol=0, atol=1e-4)
    after = weigh(at(gate[turned][..., turned]), outputs(*y[turned]))
    np.testing.assert_allclose(after, before[..., np.array(turned)], rtol=0, atol=1e-6)


@pytest.mark.parametrize("literal", [True, False])
def test_equal_experts_give_their_output_whatever_the_gate(literal):
    rng = np.random.default_rng(3)
    bare, one = rng.normal(size=(2, 2, 2))
    site = at(5 * rng.normal(size=(3, 2, 3)))
    y = Mixed(Gate("pooled", "layernorm"), literal)(site, block(bare, [one] * 3), jnp.zeros((1, 2, 2)))
    np.testing.assert_allclose(y[0], one + literal * bare, rtol=0, atol=1e-5)


def upper(base, *names):
    """A pool whose experts adapt the upper layer alone."""
    some = [tiny.expert(base, name) for name in names]
    some = [one._replace(loras={key: lora for key, lora in one.loras.items() if key[1] == 1}) for one in some]
    return pool_of(some, base.sites, base.shapes, base.layers, rank=2)


def routed(kind, names=worlds.NAMES, seed=7, size=0.1, **options):
    """MoLE with random gates over experts of the upper layer: config, base, pool, arrays, batch."""
    world, config = worlds.standard(kind), Config(**options)
    given = upper(world.base, *names)
    rng, e = np.random.default_rng(seed), len(names)
    tokens = 12 if config.mode == "paper" else 1
    width = {"block": world.base.model.config.width}.get(config.level, 16)
    paths = {"block": ["layers"], "layer": ["layers/attn", "layers/mlp"]}.get(config.level)
    places = {}
    for path in paths or given.bank.sites:
        kept = 2 if paths else len(given.bank.sites[path].a)
        width = 16 if paths else given.bank.sites[path].b.shape[-1]
        gate = rng.normal(size=(kept, e, tokens * width, e)) * size / np.sqrt(tokens)
        places[path] = {"gate": jnp.asarray(gate, jnp.float32), "log_tau": jnp.zeros(kept)}
    fitted = Fitted({"places": places, "knobs": {}}, given.names)
    return config, world.base, given, METHOD.arrays(config, world.base, given, fitted), worlds.batch(world)


@partial(jax.jit, static_argnames="adapted")
def looked(adapted, arrays, batch):
    ran = run(adapted, arrays, batch, record=True)
    return ran.hidden, sown(ran.records, "weights")


@pytest.mark.parametrize("mode", ["pooled", "token", "paper"])
def test_a_block_is_the_mean_of_what_each_expert_alone_gives(mode):
    config, base, given, arrays, batch = routed("encoder", mode=mode)
    hidden, weights = looked(adapt(config, base), arrays, batch)
    g = weights["layers"].values[1]
    assert g.min() > 0.02 and np.std(g[..., 0]) > 1e-3  # neither uniform nor one expert
    own = worlds.load("own_expert")
    total = 0.0
    for e in range(3):
        alone = batch._replace(expert=jnp.full(4, e, jnp.int32))
        each = looked(own.adapt(own.Config(), base), arrays, alone)[0]
        total += each * (g[:, None, e, None] if g.ndim == 2 else g[..., e, None])
    np.testing.assert_allclose(hidden, total, rtol=0, atol=1e-5)


def test_the_literal_block_adds_the_bare_one():
    config, base, given, arrays, batch = routed("encoder", residual="literal")
    adapted = adapt(config, base)
    assert (adapted.copies, adapted.each) == (1, 1)
    bare = run(worlds.fitted("encoder", "base").adapted, arrays, batch).hidden

    def first(place, site, next, *args):  # the lower block, which nothing adapts, is left as it is
        y = place(site, next, *args)
        return jnp.where(site.layer == 0, next(*args, outer=Weights(jnp.zeros(3))), y)

    places = tuple((path, partial(first, place)) if path == "layers" else (path, place)
                   for path, place in adapted.places)  # fmt: skip
    literal = run(replace(adapted, places=places), arrays, batch).hidden
    once = run(adapt(replace(config, residual="once"), base), arrays, batch).hidden
    np.testing.assert_allclose(literal, once + bare, rtol=0, atol=1e-5)


def test_at_every_linear_the_gate_sees_the_updates():
    config, base, given, arrays, batch = routed("encoder", level="matrix")
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 12, 16)), jnp.float32)
    path = tiny.EVERYWHERE
    inside = Inside(layer=jnp.int32(1))
    site = Here(path, nn.Dense(1), inside, arrays["bank"], arrays["router"], batch, None)
    ((_, place),) = adapt(config, base).places
    given = place.score(site, x)
    stack = site.stack
    each = jnp.stack([x @ stack.a[0, e].T @ stack.b[0, e] * stack.scale[0, e] for e in range(3)], axis=1)
    np.testing.assert_allclose(given.values, Gate("pooled", "layernorm")(site, each), rtol=0, atol=1e-6)
    assert given.index is None and np.std(given.values[:, 0]) > 1e-3


@pytest.mark.slow
def test_only_gates_and_temperatures_learn(tmp_path):
    config, base, given, arrays, batch = routed("encoder")
    adapted = adapt(config, base)

    def loss(arrays):
        rows, records = row_loss(adapted, arrays, batch, record=True)
        return Loss(0.5)(rows, records, batch)

    slopes = jax.grad(lambda places: loss(overlay(arrays, {"router": {"places": places}})))(
        arrays["router"]["places"]
    )["layers"]
    assert all(np.abs(leaf[1]).max() > 0 for leaf in slopes.values())
    assert all(np.abs(leaf[0]).max() < 1e-5 for leaf in slopes.values())  # nobody adapts the lower block
    world = worlds.standard("encoder")
    settings = Config(steps=3, batch=6, rate=0.1)
    fitted = METHOD.fit(settings, base, world.pool, worlds.grants(world, METHOD.card.grants), Work(tmp_path))
    assert fitted.bank is None and not fitted.patch
    assert fitted.trained == 2 * (3 * 16 * 3 + 1)  # two blocks; five slots, three of them with an expert
    leaves = fitted.router["places"]["layers"]
    assert np.abs(leaves["gate"][:, :3, :, :3]).max() > 0 and not np.any(leaves["gate"][:, 3:])
    assert not np.any(leaves["gate"][..., 3:])


def test_texts_of_another_length_are_refused_by_the_paper_mode():
    config, base, given, arrays, batch = routed("encoder", mode="paper")
    short = tile(batch, 1)
    short = Batch(*(leaf[:, :8] if leaf is not None and leaf.shape == (4, 12) else leaf for leaf in short))
    with pytest.raises(UserError, match="fitted on texts of 12 tokens, here are 8"):
        run(adapt(config, base), arrays, short)


def test_a_linear_has_no_residual_stream():
    with pytest.raises(UserError, match="residual='literal' is for level='block' or 'layer'"):
        adapt(Config(level="matrix", residual="literal"), tiny.base("encoder"))


def test_an_mlp_that_no_expert_adapts_is_left_alone(tmp_path):
    world = worlds.standard("encoder")
    some = [tiny.expert(world.base, name, everywhere=False) for name in worlds.NAMES]
    given = pool_of(some, world.base.sites, world.base.shapes, world.base.layers, rank=2)
    config = Config(level="layer", steps=1, batch=6)
    grants = worlds.grants(world, METHOD.card.grants)
    fitted = METHOD.fit(config, world.base, given, grants, Work(tmp_path))
    assert list(fitted.router["places"]) == ["layers/attn"]


def test_the_rate_follows_the_mode():
    assert RATE == {"pooled": 1e-3, "token": 1e-3, "paper": 1e-5}
