"""The joint at linears: weights of every rank, bit-equality with the base, gradients, records, dtypes."""

from dataclasses import dataclass, replace
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from joint_case import (
    CONFIGS,
    arrays_of,
    bank_of,
    base_of,
    batch_of,
    close,
    explicit,
    forward,
    jit,
    loop,
    same,
)

from moejax.adapted import Adapted, run
from moejax.aggregation.rule import FEW
from moejax.experts.bank import Bank, drop
from moejax.experts.stacks import Stack
from moejax.places import LINEARS, Lora, dropped
from moejax.routing import select
from moejax.site import Inside, Site
from moejax.types import Weights


@dataclass(frozen=True)
class TopK:
    """Top-k of x . g_e."""

    k: int = 2

    def __call__(self, site, x):
        return select.top_k(jnp.einsum("btd,ed->bte", x, site.leaves["gate"]), site.present, self.k)


def soft(site, x):
    """Softmax over all."""
    return select.softmax(jnp.einsum("btd,ed->bte", x, site.leaves["gate"]), site.present)


@dataclass(frozen=True)
class Together:
    """TopK by what sites of one input share."""

    def __call__(self, site, x):
        return select.top_k(site.dots(x, "gate"), site.present, 2)


def adapted_by(kind, score=None, **options):
    return Adapted(base_of(replace(CONFIGS[kind], **options)).model, ((LINEARS, Lora("output", score)),))


def top_two(bank, places, path, layer, x):
    """What TopK(2) gives, [b, t, e], in numpy: the two largest of those present, softmax over them."""
    w, stack = np.zeros((*x.shape[:2], 4)), bank.sites.get(path)
    slot = -1 if stack is None else int(stack.slot[layer])
    if slot < 0:
        return w
    scores = np.einsum("btd,ed->bte", x, places[path]["gate"][slot])
    here = np.flatnonzero(stack.present[slot] & bank.alive)
    for at in np.ndindex(*x.shape[:2]):
        best = sorted(here, key=lambda e: -scores[at][e])[:2]
        z = np.exp(scores[at][best] - scores[at][best].max())
        w[at][best] = z / z.sum()
    return w


def routed(arrays, seen):
    """The hook of the reference; remembers the weights in `seen`."""
    bank, places = jax.device_get((arrays["bank"], arrays["router"]["places"]))

    def hook(next, path, layer, x):
        seen[path, layer] = top_two(bank, places, path, layer, x)
        return next(x) + loop(bank, path, layer, x, seen[path, layer])

    return hook


@pytest.mark.parametrize("kind", CONFIGS)
def test_top_two_experts_of_each_token_equal_the_loop_and_are_recorded(kind):
    config, batch, seen = CONFIGS[kind], batch_of(), {}
    arrays = arrays_of(config)
    found, records = forward(adapted_by(kind, TopK()), arrays, batch)
    bare, none = forward(Adapted(base_of(config).model), arrays, batch)
    mask = np.asarray(batch.mask)
    close(found[mask], explicit(config, arrays, batch, linear=routed(arrays, seen))[mask])
    close(bare[mask], explicit(config, arrays, batch)[mask])
    assert np.abs(found - bare)[mask].max() > 0.3
    assert none == {}
    for path in arrays["bank"].sites:
        _, part, name = path.split("/")
        (weights,) = records["layers"][part][name]["weights"]
        assert weights.index.shape == (3, 2, 6, 2)
        spelled = select.dense(weights, 4)
        close(spelled[:, mask], np.stack([seen[path, layer] for layer in range(3)])[:, mask])


@pytest.mark.parametrize("width", [6, 30])
@pytest.mark.parametrize("kind", CONFIGS)
def test_sites_that_read_one_input_score_it_together_and_alike(kind, width):
    config, batch = CONFIGS[kind], batch_of(t=width)
    arrays, models = arrays_of(config), [adapted_by(kind, score) for score in (Together(), TopK())]
    (ours, records), (theirs, others) = (forward(model, arrays, batch) for model in models)
    close(ours, theirs)
    jax.tree.map(close, records, others)
    products = [
        str(jax.make_jaxpr(partial(run, model))(arrays, batch)).count("dot_general") for model in models
    ]
    many = width * 2 > FEW  # then q and k, in a body that is traced once for its shapes and once to run
    assert products[0] == products[1] - many


def test_records_that_nobody_asks_for_are_dropped():
    config = CONFIGS["decoder"]
    asked = partial(run, adapted_by("decoder", TopK()))
    assert jax.eval_shape(asked, arrays_of(config), batch_of()).records == {}


@pytest.mark.parametrize("shape", [(4,), (2, 4), (2, 6, 4)])
def test_weights_of_every_rank_equal_the_loop(shape):
    config, batch, arrays = CONFIGS["encoder"], batch_of(left=False), arrays_of(CONFIGS["encoder"])
    w = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    full = np.broadcast_to({1: w, 2: w[:, None], 3: w}[w.ndim], (2, 6, 4))

    def given(next, path, layer, x):
        return next(x) + loop(arrays["bank"], path, layer, x, full)

    found, _ = forward(adapted_by("encoder"), arrays, batch, Weights(jnp.asarray(w)))
    close(found, explicit(config, arrays, batch, linear=given))


def with_stacks(change):
    return lambda bank: Bank({path: change(stack) for path, stack in bank.sites.items()}, bank.alive)


def empty(bank):
    cut = with_stacks(lambda s: Stack(*(leaf[:, :0] for leaf in s[:4]), slot=s.slot))
    return cut(bank)._replace(alive=bank.alive[:0])


absent = with_stacks(lambda s: s._replace(present=jnp.zeros_like(s.present)))
silent = with_stacks(lambda s: s._replace(b=jnp.zeros_like(s.b)))
SOME = jnp.asarray(np.random.default_rng(8).normal(size=(2, 4)), jnp.float32)


@pytest.mark.parametrize(
    ("change", "score", "outer"),
    [
        (empty, TopK(), None),
        (empty, soft, None),
        (absent, TopK(), None),
        (silent, TopK(), None),
        (absent, None, SOME),
        (silent, None, SOME),
        (lambda bank: bank._replace(alive=bank.alive & False), None, SOME),
        (lambda bank: Bank({}, bank.alive), TopK(), None),
    ],
)
def test_what_adds_nothing_is_bit_equal_to_the_base(change, score, outer):
    config, batch = CONFIGS["decoder"], batch_of()
    bank = change(bank_of(config))
    arrays = arrays_of(config, bank)
    found, _ = forward(adapted_by("decoder", score), arrays, batch, None if outer is None else Weights(outer))
    same(found, forward(Adapted(base_of(config).model), arrays_of(config), batch)[0])


AIM = np.random.default_rng(2).normal(size=(2, 6, 16))


@jit
def slopes(arrays, batch):
    """Gradients of <AIM, states> in the gates and the bank, and the records."""

    def loss(places, bank):
        given = arrays | {"router": {"places": places}, "bank": bank}
        ran = run(adapted_by("encoder", TopK()), given, batch, record=True)
        return jnp.sum(ran.hidden * jnp.asarray(AIM, jnp.float32)), ran.records

    free = arrays["router"]["places"], arrays["bank"]
    return jax.grad(loss, (0, 1), allow_int=True, has_aux=True)(*free)


def test_gradients_reach_gates_and_bank_through_scan_remat_and_top_k():
    config, batch = CONFIGS["encoder"], batch_of(left=False)
    assert config.remat
    arrays = jax.tree.map(
        lambda leaf: np.asarray(leaf, np.float64 if leaf.dtype == jnp.float32 else None), arrays_of(config)
    )
    (by_gates, by_bank), _ = slopes(arrays_of(config), batch)
    places, bank = arrays["router"]["places"], arrays["bank"]

    def moved(path, gate=0.0, a=0.0, b=0.0):
        stack = bank.sites[path]
        stacks = bank.sites | {path: stack._replace(a=stack.a + a, b=stack.b + b)}
        changed = arrays | {
            "router": {"places": places | {path: {"gate": places[path]["gate"] + gate}}},
            "bank": bank._replace(sites=stacks),
        }
        return np.sum(explicit(config, changed, batch, linear=routed(changed, {})) * AIM)

    rng, step = np.random.default_rng(4), 1e-6
    for path, stack in bank.sites.items():
        slope = {"gate": by_gates[path]["gate"], "a": by_bank.sites[path].a, "b": by_bank.sites[path].b}
        for name, found in slope.items():
            there = stack.present.reshape(stack.present.shape + (1,) * (found.ndim - 2))
            way = rng.normal(size=found.shape) * there
            expected = (moved(path, **{name: step * way}) - moved(path, **{name: -step * way})) / (2 * step)
            assert abs(expected) > 0.05
            assert float(np.sum(np.asarray(found) * way)) == pytest.approx(expected, rel=1e-4)


def test_a_site_without_any_expert_gives_zero_weights_and_finite_gradients():
    config, batch = CONFIGS["encoder"], batch_of(left=False)
    bank = bank_of(config)
    for index in (0, 1, 3):
        bank = drop(bank, index)  # the one left does not adapt the MLP
    (by_gates, by_bank), records = slopes(arrays_of(config, bank), batch)
    leaves = [leaf for leaf in jax.tree.leaves((by_gates, by_bank)) if leaf.dtype == jnp.float32]
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    nothing = records["layers"]["mlp"]["down"]["weights"][0]
    same(select.dense(nothing, 4), np.zeros((3, 2, 6, 4)))
    attention = select.dense(records["layers"]["attn"]["q"]["weights"][0], 4)
    same(attention, np.broadcast_to(np.eye(4)[2], attention.shape))


def careless(site, next, x):
    """A place that promotes: the joint casts its result."""
    return next(x).astype(jnp.float32) + soft(site, x).values.sum(-1, keepdims=True) * 0


def careless_join(site, next, x, h):
    return next(x, h).astype(jnp.float32)


def careless_block(site, next, x, ctx):
    return next(x, ctx).astype(jnp.float32)


@pytest.mark.parametrize("careful", [True, False])
def test_a_bf16_base_takes_what_places_compute_in_float32(careful):
    config = replace(CONFIGS["decoder"], dtype="bfloat16")
    arrays, batch = arrays_of(config), batch_of()
    promoting = (("layers/attn/q", careless), ("layers/*_join", careless_join), ("layers", careless_block))
    adapted = Adapted(base_of(config).model, ((LINEARS, Lora("output", soft)),) if careful else promoting)
    found, _ = forward(adapted, arrays, batch)
    assert found.dtype == jnp.bfloat16
    bank, places, mask = jax.device_get((arrays["bank"], arrays["router"]["places"], batch.mask))

    def exact(next, path, layer, x):
        if not careful or path not in bank.sites or bank.sites[path].slot[layer] < 0:
            return next(x)
        slot = int(bank.sites[path].slot[layer])
        z = np.exp(np.einsum("btd,ed->bte", x, places[path]["gate"][slot])) * bank.sites[path].present[slot]
        return next(x) + loop(bank, path, layer, x, z / z.sum(-1, keepdims=True))

    expected = explicit(config, arrays, batch, linear=exact)[mask]
    assert np.abs(np.asarray(found, np.float32)[mask] - expected).mean() < 0.03 * np.abs(expected).mean()


def own_kernel(site, next, x):
    """Reads the layer's own kernel: next(x) + x W again."""
    return next(x) + x @ site.module.get_variable("params", "kernel")


def test_a_place_sees_its_own_layers_kernel():
    config, batch = CONFIGS["decoder"], batch_of()
    base, arrays = base_of(config), arrays_of(config)

    def doubled(path, leaf):
        return leaf * 2 if "down" in jax.tree_util.keystr(path) else leaf

    more = arrays | {"params": jax.tree_util.tree_map_with_path(doubled, base.params)}
    mask = np.asarray(batch.mask)
    found, _ = forward(Adapted(base.model, (("layers/mlp/down", own_kernel),)), arrays, batch)
    close(found[mask], explicit(config, more, batch)[mask])


def test_dropped_inputs_are_zero_the_others_larger_and_every_key_draws_anew():
    x = jnp.ones((4, 50, 100))
    one, again, other = (np.asarray(dropped(x, 0.25, jax.random.key(seed))) for seed in (0, 0, 1))
    np.testing.assert_allclose(np.unique(one), [0.0, 4 / 3], rtol=1e-6)
    assert abs(np.mean(one == 0) - 0.25) < 0.02 and abs(np.mean(one) - 1.0) < 0.02
    assert np.array_equal(one, again) and not np.array_equal(one, other)
    assert dropped(x, 0.25, None) is x and dropped(x, 0.0, jax.random.key(0)) is x


def test_a_place_drops_what_its_experts_see_and_not_what_the_base_sees():
    config, whole = CONFIGS["encoder"], adapted_by("encoder", soft)
    cut = replace(whole, places=((LINEARS, Lora("output", soft, dropout=1.0 - 1e-6)),))
    arrays, batch, bank = arrays_of(config), batch_of(), bank_of(config)
    hidden = run(whole, arrays, batch).hidden
    same(run(cut, arrays, batch).hidden, hidden)
    bare = run(whole, arrays | {"bank": bank._replace(alive=jnp.zeros_like(bank.alive))}, batch).hidden
    close(run(cut, arrays, batch, key=jax.random.key(0)).hidden, bare)
    assert np.abs(hidden - bare).max() > 0.1


def test_scores_that_sites_share_are_those_of_the_input_that_each_was_given():
    """q has multiplied for k and v too; k is given another input all the same."""
    rng = np.random.default_rng(0)
    gates = {f"layers/attn/{n}": {"gate": rng.normal(size=(1, 3, 8)).astype(np.float32)} for n in "qkv"}
    bank, inside = Bank({}, jnp.ones(3, bool)), Inside()
    places = jax.tree.map(jnp.asarray, gates)
    one, other = (jnp.asarray(rng.normal(size=(2, FEW, 8)), jnp.float32) for _ in range(2))
    for name, x in (("q", one), ("k", one), ("k", other), ("v", other), ("q", one)):
        path = f"layers/attn/{name}"
        site = Site(path, nn.Dense(1), inside, bank, {"places": places}, batch_of(2, FEW), None)
        wanted = np.einsum("btd,ed->bte", x, gates[path]["gate"][0])
        np.testing.assert_allclose(site.dots(x, "gate"), wanted, rtol=1e-4, atol=1e-5)
