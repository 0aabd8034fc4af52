"""MeteoRA: the checks and worked numbers of its card, on one linear and on a small base."""

import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import world as worlds
from one_linear import PATH, base_of, lora, pool, random_loras, run, sizes
from stand_in import here, request

from moejax.adapted import Adapted
from moejax.contract import Fitted
from moejax.experts import lora as loras_
from moejax.experts.bank import size
from moejax.loss import row_loss
from moejax.methods import meteora
from moejax.methods.meteora import METHOD, Config, Identified, Loss, adapt, cross_entropy
from moejax.places import LINEARS, Lora
from moejax.routing import select
from moejax.train.overlay import overlay
from moejax.train.work import Work
from moejax.types import Batch

X = np.random.default_rng(3).normal(size=(5, 4)).astype(np.float32)
GATES = np.random.default_rng(4).normal(size=(4, 4)).astype(np.float32)
HAND = [lora([[1.0, 0.0, 0.0]], [[10.0**i]]) for i in range(3)]


def used(loras, gates, x, **options):
    """y, delta and weights with these gates."""
    d, f = sizes(loras)
    base, some, config = base_of(d, f), pool(loras, d, f), Config(**options)
    places = {PATH: {"gate": jnp.asarray(gates, jnp.float32)[None]}}
    router = {"places": places, "knobs": {"temperature": jnp.float32(config.temperature)}}
    fitted = Fitted(router, some.names)
    return run(adapt(config, base), METHOD.arrays(config, base, some, fitted), x)


def at(expert, mask=None, weight=None, present=(True, True, True)):
    """A site, as far as the loss looks at it."""
    batch = request(len(expert), 1 if mask is None else 2, expert=jnp.asarray(expert), weight=weight)
    return here(PATH, present, {}, batch if mask is None else batch._replace(mask=jnp.asarray(mask)))


def test_one_expert_is_the_plain_lora():
    one = random_loras(1)
    _, added, w = used(one, GATES[:1], X)
    np.testing.assert_array_equal(w, np.ones((5, 1)))
    np.testing.assert_allclose(added, X @ loras_.delta(one[0]), rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [({}, (0.731059, 0.268941, 0)), ({"temperature": 15.0}, (0.516660, 0.483340, 0)), ({"k": 1}, (1, 0, 0))],
)
def test_hand_example(options, wanted):
    x, gates = [1.0, 0.0, 0.0], [[2.0, 0, 0], [1.0, 0, 0], [-1.0, 0, 0]]  # z = (2, 1, -1)
    _, added, w = used(HAND, gates, x, **options)
    np.testing.assert_allclose(w, wanted, rtol=0, atol=1e-6)
    np.testing.assert_allclose(added, [np.dot(wanted, (1, 10, 100))], rtol=0, atol=2e-5)


def test_softmax_over_all_then_top_k_renormalised_is_the_same():
    z = X @ GATES.T
    everything = select.softmax_top_k(jnp.asarray(z), jnp.ones(4, bool), 2, eps=0.0)
    _, _, w = used(random_loras(4), GATES, X)
    np.testing.assert_allclose(w, select.dense(everything, 4), rtol=0, atol=1e-6)


def test_the_gate_loss_of_the_hand_example():
    found = [cross_entropy(jnp.asarray([[z]], jnp.float32), at([1])) for z in ((2, 1, -1), (0, 0, 0))]
    np.testing.assert_allclose([float(total) for total, _ in found], (1.349012, np.log(3)), rtol=0, atol=1e-6)
    records = {"a": {"identity": (found[0],)}, "b": {"c": {"identity": (found[1],)}}}
    loss = Loss(50.0)(jnp.asarray([2.0]), records, Batch(None, None, None))
    np.testing.assert_allclose(loss, 63.190613, rtol=0, atol=1e-5)
    assert float(Loss(0.0)(jnp.asarray([2.0]), records, Batch(None, None, None))) == 2.0


def test_uniform_gates_lose_the_logarithm_of_the_number_of_experts():
    total, tokens = cross_entropy(jnp.zeros((1, 1, 28)), at([3], present=[True] * 28))
    np.testing.assert_allclose(total / tokens, 3.332205, rtol=0, atol=1e-6)


def test_padding_filler_rows_and_absent_experts_count_for_nothing():
    z = jnp.asarray(np.random.default_rng(5).normal(size=(3, 2, 3)), jnp.float32)
    first = cross_entropy(z[:1, :1], at([0]))
    mask, weight = [[True, False], [True, True], [True, True]], jnp.asarray([1.0, 0.0, 1.0])
    masked = cross_entropy(z, at([0, 1, 2], mask, weight, [True, True, False]))  # expert 2 does not adapt it
    two = cross_entropy(z[:1, :1, :2], at([0], present=[True, True]))
    np.testing.assert_allclose(masked, (two[0], 1.0), rtol=0, atol=1e-6)
    assert float(first[0]) > float(two[0])


def trained(kind, **options):
    """A world, its arrays and the adapted model of training, with random gates."""
    world = worlds.standard(kind)
    config = Config(**options)
    places = meteora.gates(world.pool.bank, world.pool.names, 0)
    router = {"places": places, "knobs": {"temperature": jnp.float32(1)}}
    arrays = METHOD.arrays(config, world.base, world.pool, Fitted(router, world.pool.names))
    place = Identified(Lora("output", meteora.Score(config.k)))
    return world, arrays, Adapted(world.base.model, ((LINEARS, place),))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_with_one_expert_a_token_the_task_loss_says_nothing_to_the_gates(kind):
    world, arrays, adapted = trained(kind, k=1)
    batch = worlds.batch(world)

    def loss(places, identity):
        rows, records = row_loss(adapted, overlay(arrays, {"router": {"places": places}}), batch, record=True)
        return Loss(identity)(rows, records, batch)

    slopes = jax.grad(loss)(arrays["router"]["places"], 0.0)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(slopes))
    slopes = jax.grad(loss)(arrays["router"]["places"], 50.0)
    assert any(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(slopes))


def test_the_loss_of_a_base_averages_over_gates_and_real_tokens():
    world, arrays, adapted = trained("encoder")
    batch = worlds.batch(world)
    rows, records = row_loss(adapted, arrays, batch, record=True)
    total = tokens = 0.0
    for path, stack in arrays["bank"].sites.items():
        node = records
        for part in path.split("/"):
            node = node[part]
        sums, counts = node["identity"][0]
        adapted_layers = np.asarray(stack.slot) >= 0
        assert not np.any(np.asarray(counts)[~adapted_layers])
        total, tokens = total + float(sums.sum()), tokens + float(counts.sum())
    wanted = float(rows.mean()) + 7 * total / tokens
    np.testing.assert_allclose(float(Loss(7.0)(rows, records, batch)), wanted, rtol=1e-6)


def fit(world, folder: Path, **options):
    """Fitted for a few steps."""
    config = Config(steps=3, batch=6, rate=0.05, **options)
    return METHOD.fit(config, world.base, world.pool, worlds.grants(world, METHOD.card.grants), Work(folder))


@pytest.mark.slow
def test_the_experts_are_frozen_unless_they_are_asked_for():
    world = worlds.standard("encoder")
    with tempfile.TemporaryDirectory() as folder:
        frozen, free = fit(world, Path(folder, "a")), fit(world, Path(folder, "b"), train_loras=True)
    assert frozen.bank is None
    for path, stack in world.pool.bank.sites.items():
        new = free.bank.sites[path]
        assert not np.allclose(new.a, stack.a) and not np.allclose(new.b, stack.b)
        for name in ("scale", "present", "slot"):
            np.testing.assert_array_equal(getattr(new, name), getattr(stack, name))
        absent = ~np.asarray(stack.present)
        np.testing.assert_array_equal(np.asarray(new.a)[absent], np.asarray(stack.a)[absent])
    gates = sum(leaf["gate"].size for leaf in frozen.router["places"].values())
    factors = sum(s.a.size + s.b.size for s in world.pool.bank.sites.values())
    slots, there = size(world.pool.bank), len(world.pool.names)
    assert (frozen.trained, free.trained) == (gates * there / slots, (gates + factors) * there / slots)


@pytest.mark.slow
def test_inputs_are_dropped_where_the_experts_are_trained_and_nowhere_else(tmp_path):
    world = worlds.standard("encoder")

    def at(name, **options):
        return fit(world, tmp_path / name, **options)

    kept, some, again = (
        at(name, train_loras=True, dropout=share) for name, share in (("a", 0.0), ("b", 0.5), ("c", 0.5))
    )
    for path, stack in kept.bank.sites.items():
        assert not np.allclose(some.bank.sites[path].a, stack.a)
        np.testing.assert_array_equal(some.bank.sites[path].a, again.bank.sites[path].a)
    frozen, other = (at(name, dropout=share).router["places"] for name, share in (("d", 0.0), ("e", 0.5)))
    jax.tree.map(np.testing.assert_array_equal, frozen, other)


@pytest.mark.slow
def test_the_temperature_is_a_knob_that_compiles_nothing():
    world, fitted = worlds.standard("decoder"), worlds.fitted("decoder", "meteora")
    batch = worlds.batch(world)
    _, sharp = worlds.look(fitted, batch)
    warm = overlay(fitted.arrays, {"router": {"knobs": {"temperature": jnp.float32(1e6)}}})
    with worlds.compiles() as names:
        _, flat = worlds.look(fitted, batch, warm)
    assert names == []
    w, before = flat[tiny.EVERYWHERE][0], sharp[tiny.EVERYWHERE][0]  # what enters later layers has changed
    np.testing.assert_allclose(w[w > 0], 0.5, rtol=0, atol=1e-4)
    assert np.array_equal(w > 0, before > 0) and np.ptp(before[before > 0]) > 0.1


def test_gates_start_from_the_name_not_the_place():
    bank = worlds.standard("encoder").pool.bank
    one, two = meteora.gates(bank, ("ann", "bob", "cy"), 0), meteora.gates(bank, ("bob", "ann", "cy"), 0)
    for path, leaves in one.items():
        d = bank.sites[path].a.shape[-1]
        np.testing.assert_array_equal(leaves["gate"][:, 0], two[path]["gate"][:, 1])
        assert 0.8 / np.sqrt(d) < np.abs(leaves["gate"]).max() <= 1 / np.sqrt(d)
        assert not np.any(leaves["gate"][:, 3:])  # free slots
