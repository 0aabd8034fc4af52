"""CALM: the checks and worked numbers of its card, and two small decoders of different shape against numpy."""

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import world as worlds
from joint_case import batch_of, close, jit, loop, same
from reference import Reference, softmax

from moejax.adapted import Adapted, head, prefix, run, score, start, step
from moejax.aggregation.cross_attention import attend, project
from moejax.composed import LAYERS
from moejax.contract import Fitted
from moejax.evaluate import router_file
from moejax.experts.pool import pool_of
from moejax.loss import row_loss
from moejax.methods.calm import METHOD, Config, adapt, connected, fresh
from moejax.models.block import slice_layers
from moejax.models.decoder import DecoderConfig
from moejax.models.generate import generate
from moejax.models.weights import random_base
from moejax.train.overlay import overlay
from moejax.train.work import Work
from moejax.types import UserError

FIRST = DecoderConfig(vocab=40, width=12, layers=5, heads=3, kv_heads=3, hidden=20, window=3)
SECOND = DecoderConfig(vocab=40, width=16, layers=4, heads=4, kv_heads=2, hidden=24, window=4)
TWO = Config(connections=2, heads=2)  # after layers 1 and 3 of the first, 1 and 3 of the second
POOL = tiny.pool(tiny.base("decoder"), "ann")


@cache
def pair():
    return replace(random_base(SECOND, 0, 1.0), beside=random_base(FIRST, 1, 1.0))


def connections(config, base=None, names=("beside",), room=1, seed=3):
    """The leaves of a router whose weights are all far from zero."""
    model, rng = fresh(config, base or pair(), names, room, 0), np.random.default_rng(seed)
    drawn = {n: rng.normal(size=model[n].shape) / model[n].shape[-2] ** 0.5 for n in ("project", *"qkvo")}
    if "norm" in model:
        drawn["norm"] = rng.normal(size=model["norm"].shape)
    return model | {name: jnp.asarray(leaf, jnp.float32) for name, leaf in drawn.items()}


def arrays_of(config, model, base=None, pool=POOL):
    router = {"model": model, "places": {}, "knobs": {}}
    return METHOD.arrays(config, base or pair(), pool, Fitted(router, pool.names))


@partial(jit, static_argnames="adapted")
def logits(adapted, arrays, batch):
    return head(adapted.model, arrays, run(adapted, arrays, batch).hidden)


def composed(config, model, batch, base=None, pool=POOL):
    base = base or pair()
    return logits(adapt(config, base), arrays_of(config, model, base, pool), batch)


def bare(batch):
    return logits(Adapted(pair().model), arrays_of(TWO, connections(TWO)), batch)


def eye(*names, size=2):
    return {name: jnp.eye(size)[None] for name in names}


def attended(h_b, h_a, mask, weights=None):
    """H_B + f_cross of one head over states given by hand, [t, 2] both."""
    weights = eye("project", *"qkvo") if weights is None else weights
    first = {n: weights[n][None] for n in ("project", "k", "v")}
    keys, values = project(first, jnp.asarray(h_a, jnp.float32)[None, None, None], 1)
    x = jnp.asarray(h_b, jnp.float32)[None]
    seen = None if mask is None else jnp.asarray(mask, bool)[None, None]
    return (x + attend({n: weights[n] for n in "qo"}, x, keys[0], values[0], seen)[:, :, 0])[0]


def test_hand_example():
    one, two = np.eye(2), 2 * np.eye(2)
    close(attended(one, two, np.tril(np.ones((2, 2)))), [[3, 0], [0.391141, 2.608859]], atol=1e-6)
    close(attended(one, two, None)[0], [2.608859, 0.391141], atol=1e-6)


def test_one_token_has_weight_one_whatever_queries_and_keys_are():
    rng = np.random.default_rng(0)
    weights = {n: jnp.asarray(rng.normal(size=(1, 2, 2)), jnp.float32) for n in ("project", *"qkvo")}
    h_b, h_a = rng.normal(size=(1, 2)), rng.normal(size=(1, 2))
    wanted = h_b + h_a @ weights["project"][0] @ weights["v"][0] @ weights["o"][0]
    close(attended(h_b, h_a, [[True]], weights), wanted, atol=1e-5)
    close(attended(h_b, h_a, [[True]], weights | {n: 5 * weights[n] for n in "qk"}), wanted, atol=1e-5)


def test_a_fresh_composition_is_the_anchor():
    batch = batch_of()
    same(composed(TWO, fresh(TWO, pair(), ("beside",), 1, 0), batch), bare(batch))
    assert np.abs(composed(TWO, connections(TWO), batch) - bare(batch)).max() > 0.1
    released = replace(TWO, post_norm=True)
    assert (
        np.abs(composed(released, fresh(released, pair(), ("beside",), 1, 0), batch) - bare(batch)).max()
        > 0.1
    )


def test_no_connection_is_the_anchor(tmp_path):
    world, none, batch = worlds.standard("decoder"), Config(connections=0), batch_of()
    same(composed(none, connections(none), batch), bare(batch))
    fitted = METHOD.fit(
        none, world.base, world.pool, worlds.grants(world, METHOD.card.grants), Work(tmp_path)
    )
    assert fitted.trained == 0


def test_a_later_token_changes_nothing_before_it_and_leaks_in_the_released_form():
    batch, model = batch_of(left=False), connections(TWO)
    later = batch._replace(tokens=batch.tokens.at[0, 5].add(1))
    before, after = composed(TWO, model, batch), composed(TWO, model, later)
    same(before[0, :5], after[0, :5])
    assert np.abs(before[0, 5] - after[0, 5]).max() > 0.01
    leaky = replace(TWO, mask="released")
    before, after = composed(leaky, model, batch), composed(leaky, model, later)
    assert np.abs(before[0, 0] - after[0, 0]).max() > 0.01


@pytest.mark.parametrize("left", [True, False])
def test_padding_is_not_seen(left):
    batch, model = batch_of(left=left), connections(TWO)
    mask = np.asarray(batch.mask)
    noise = batch._replace(tokens=jnp.where(batch.mask, batch.tokens, 7))
    assert not np.array_equal(noise.tokens, batch.tokens)
    same(composed(TWO, model, batch)[mask], composed(TWO, model, noise)[mask])
    leaky = replace(TWO, mask="released")
    moved = np.abs(composed(leaky, model, batch) - composed(leaky, model, noise))[mask]
    assert moved.max() > 0.01


def spelled_out(config, model, batch, base, firsts, order=None):
    """m_B's logits, float64: each first model's states after the read layers, then the paper's equations."""
    w = {n: np.asarray(leaf, np.float64) for n, leaf in model.items() if n not in LAYERS}
    seen = np.broadcast_to(np.asarray(batch.mask)[:, None], (*batch.mask.shape, batch.mask.shape[1]))
    if config.mask == "causal":
        seen = seen & np.tril(np.ones(seen.shape[1:], bool))[None]
    heads = config.heads or base.model.config.heads

    def cross(j, e, h_b, h_a):
        p = h_a @ w["project"][j, e]
        q, k, v = h_b @ w["q"][j, e], p @ w["k"][j, e], p @ w["v"][j, e]
        look = seen if config.mask == "causal" else np.ones_like(seen)
        size, outs = q.shape[-1] // heads, []
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            scores = np.einsum("btd,bsd->bts", q[..., part], k[..., part]) / size**0.5
            outs.append(softmax(np.where(look, scores, -1e30)) @ v[..., part])
        y = np.concatenate(outs, axis=-1) @ w["o"][j, e]
        if config.post_norm:
            y = y / np.sqrt((y**2).mean(-1, keepdims=True) + 1e-6) * (1 + w["norm"][j, e])
        return y

    states = [states_of(*one, batch) for one in firsts]
    reads = np.asarray(model["read"])

    def block(next, layer, x):
        y, j = next(x), int(model["slot"][layer])
        return y if j < 0 else y + sum(cross(j, e, y, h[reads[j]]) for e, h in enumerate(states))

    return Windowed(base.model.config, base.params, block=block).logits(batch.tokens, batch.mask)


def states_of(base, hook, batch):
    """States of a model after each of its blocks, with a hook at its linears."""
    found = []

    def keep(next, layer, x):
        found.append(next(x))
        return found[-1]

    Windowed(base.model.config, base.params, block=keep, linear=hook).hidden(batch.tokens, batch.mask)
    return found


class Windowed(Reference):
    """The reference with a sliding window."""

    def body(self, w, layer, x, positions, seen):
        if self.config.window is not None:
            seen = seen & (positions[:, :, None] - positions[:, None, :] < self.config.window)
        return super().body(w, layer, x, positions, seen)


def plain(next, path, layer, x):
    return next(x)


MODES = {
    "causal": TWO,
    "released": replace(TWO, mask="released"),
    "post_norm": replace(TWO, post_norm=True),
    "linspace": replace(TWO, layers="linspace", connections=3, heads=None),
    "named": Config(reads=(4, 0, 4), writes=(2, 1, 0)),
    "default": Config(),
}


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_two_models_of_different_shape_equal_the_equations(mode, left):
    config, batch = MODES[mode], batch_of(left=left)
    model, mask = connections(config), np.asarray(batch.mask)
    wanted = spelled_out(config, model, batch, pair(), [(pair().beside, plain)])
    assert np.abs(wanted - np.asarray(bare(batch)))[mask].max() > 0.1
    close(composed(config, model, batch)[mask], wanted[mask])


def experts():
    """A base of three layers and two experts that adapt the middle one alone, one slot free."""
    base = random_base(replace(tiny.CONFIGS["decoder"], layers=3), 0, 1.0)
    some = [tiny.expert(base, name) for name in ("ann", "bob")]
    some = [one._replace(loras={site: lora for site, lora in one.loras.items() if site[1]}) for one in some]
    return base, pool_of(some, base.sites, base.shapes, base.layers, capacity=3)


def test_experts_of_a_pool_are_augmenting_models_whose_terms_add_up():
    base, pool = experts()
    config = Config(connections=2, heads=2)
    model, batch = connections(config, base, pool.names, 3), batch_of()
    firsts = []
    for e in range(2):
        worn = np.eye(3)[None, None, e]

        def hook(next, path, layer, x, worn=worn):
            return next(x) + loop(pool.bank, path, layer, x, np.broadcast_to(worn, (*x.shape[:2], 3)))

        firsts.append((base, hook))
    wanted = spelled_out(config, model, batch, base, firsts)
    mask = np.asarray(batch.mask)
    close(composed(config, model, batch, base, pool)[mask], wanted[mask])


@pytest.mark.parametrize("of", ["pair", "pool"])
def test_cached_activations_below_the_lowest_layer_change_nothing(of):
    base, pool = (pair(), POOL) if of == "pair" else experts()
    top = replace(base, params=slice_layers(base.params, 1, base.layers))
    model = connections(TWO, top, *((["beside"], 1) if of == "pair" else (pool.names, 3)))
    slots = {"pair": [-1, 0, -1, 1], "pool": [-1, 0, 1]}[of]
    assert model["slot"].tolist() == slots and model["read"].tolist() == {"pair": [1, 3], "pool": [1, 2]}[of]
    batch = batch_of()
    whole = composed(TWO, model, batch, base, pool)
    entering = prefix(base.model, base.params, batch, 1)
    mask = np.asarray(batch.mask)
    close(composed(TWO, model, batch._replace(prefix=entering), top, pool)[mask], whole[mask])


def test_permuted_heads_change_nothing():
    batch, model = batch_of(), connections(TWO)
    turned = {n: jnp.roll(model[n], 8, axis=-1) for n in "qkv"} | {"o": jnp.roll(model["o"], 8, axis=-2)}
    close(composed(TWO, model | turned, batch), composed(TWO, model, batch))
    wrong = model | turned | {"o": model["o"]}
    assert np.abs(composed(TWO, wrong, batch) - composed(TWO, model, batch)).max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("of", ["pair", "pool"])
def test_three_caches_in_one_loop_equal_the_uncached_forward(of):
    batch, new = batch_of(), 3
    base, pool = (pair(), POOL) if of == "pair" else experts()
    names, room = (("beside",), 1) if of == "pair" else (pool.names, 3)
    model = connections(TWO, base, names, room, seed=11)
    adapted, arrays = adapt(TWO, base), arrays_of(TWO, model, base, pool)
    decode = partial(generate, partial(start, adapted, room=new), partial(step, adapted), max_new=new)
    tokens = jit(decode)(arrays, batch).tokens
    longer = batch._replace(
        tokens=jnp.concatenate([batch.tokens, tokens], axis=1),
        mask=jnp.concatenate([batch.mask, jnp.ones((2, new), bool)], axis=1),
    )
    wanted = logits(adapted, arrays, longer)
    same(tokens, jnp.argmax(wanted[:, -new - 1 : -1], axis=-1))
    assert len(np.unique(tokens)) > 2
    got, state = jit(start, static_argnums=(0, 3))(adapted, arrays, batch, new)
    for i in range(new):
        close(got, wanted[:, batch.tokens.shape[1] - 1 + i])
        got, state = jit(step, static_argnums=0)(adapted, arrays, tokens[:, i], state)


def test_without_a_mask_nothing_is_cached():
    leaky = replace(TWO, mask="released")
    with pytest.raises(UserError, match="no cache serves it: use mask='causal'"):
        start(adapt(leaky, pair()), arrays_of(leaky, connections(leaky)), batch_of(), 2)


def test_only_connections_are_trained_and_they_are_as_many_as_the_paper_counts(tmp_path):
    base = replace(tiny.base("decoder"), beside=random_base(replace(FIRST, vocab=tiny.VOCAB), 1, 1.0))
    world = worlds.standard("decoder")._replace(base=base)
    config = replace(TWO, steps=3, batch=6, rate=0.1)
    fitted = METHOD.fit(config, base, world.pool, worlds.grants(world, METHOD.card.grants), Work(tmp_path))
    assert fitted.trained == 2 * (12 * 16 + 4 * 16 * 16)
    assert fitted.bank is None and not fitted.patch
    before = fresh(config, base, ("beside",), 1, 0)
    for name, leaf in fitted.router["model"].items():
        assert np.array_equal(leaf, before[name]) == (name in LAYERS), name
    arrays, adapted = METHOD.arrays(config, base, world.pool, fitted), adapt(config, base)
    assert arrays["params"] is base.params and arrays["beside"] is base.beside.params
    batch = worlds.batch(world)
    free = {"router": {"model": {n: leaf for n, leaf in fitted.router["model"].items() if n not in LAYERS}}}
    both = {"params": base.params, "beside": base.beside.params}

    def loss(trainable, models):
        return jnp.sum(row_loss(adapted, overlay(arrays | models, trainable), batch)[0])

    backwards = jit(jax.grad(loss)).lower(free, both).as_text()
    forwards = jit(loss).lower(free, both).as_text()
    through = jit(jax.grad(loss, argnums=(0, 1))).lower(free, both).as_text()
    products = [text.count("dot_general") for text in (forwards, backwards, through)]
    assert products[1] < products[2]  # what the frozen models would cost to differentiate is not computed


def test_an_interrupted_fit_goes_on_and_ends_in_the_same_numbers(tmp_path):
    world, config = worlds.standard("decoder"), replace(TWO, steps=4, batch=6, rate=0.1)
    grants = worlds.grants(world, METHOD.card.grants)
    whole = METHOD.fit(config, world.base, world.pool, grants, Work(tmp_path / "whole"))
    calls, lines, rows = 0, [], world.target.rows.train

    class Interrupted(type(rows)):
        def take(self, index):
            nonlocal calls
            calls += 1
            if calls == 3:
                raise KeyboardInterrupt
            return super().take(index)

    cut = Interrupted(rows.whole, rows.index)
    target = world.target._replace if hasattr(world.target, "_replace") else partial(replace, world.target)
    other = world._replace(target=target(rows=world.target.rows._replace(train=cut)))
    again = worlds.grants(other, METHOD.card.grants)
    with pytest.raises(KeyboardInterrupt):
        METHOD.fit(config, world.base, world.pool, again, Work(tmp_path / "cut", log=lines.append))
    kept = [line["step"] for line in lines]
    ended = METHOD.fit(config, world.base, world.pool, again, Work(tmp_path / "cut", log=lines.append))
    assert kept == [0, 1] and [line["step"] for line in lines] == [0, 1, 2, 3]
    jax.tree.map(same, ended.router["model"], whole.router["model"])


@pytest.mark.parametrize(
    ("config", "sizes", "wanted"),
    [
        (Config(), (8, 8), ([3, 7], [3, 7])),
        (Config(), (12, 24), ([3, 7, 11], [7, 15, 23])),
        (Config(), (10, 7), ([3, 7], [2, 6])),
        (Config(), (2, 6), ([1], [5])),
        (Config(connections=2), (9, 4), ([3, 7], [1, 3])),
        (Config(connections=2, layers="linspace"), (18, 28), ([0, 17], [0, 27])),
        (Config(connections=3, layers="linspace"), (6, 8), ([0, 2, 5], [0, 3, 7])),
        (Config(connections=0), (6, 8), ([], [])),
        (Config(reads=(3, 3), writes=(1, 0)), (4, 4), ([3, 3], [1, 0])),
    ],
)
def test_chosen_layers(config, sizes, wanted):
    assert connected(config, *map(range, sizes)) == wanted


def test_layers_are_counted_among_those_that_there_are():
    assert connected(Config(), range(4, 12), range(2, 6)) == ([7, 11], [3, 5])
    assert connected(Config(layers="linspace", connections=2), range(1, 3), range(2, 6)) == ([1, 2], [2, 5])


def test_models_that_do_not_go_together_are_refused():
    decoder = pair()
    with pytest.raises(UserError, match="5 connections, but one of the models has 4 layers: give at most 4"):
        fresh(Config(connections=5), decoder, ("beside",), 1, 0)
    for reads, writes in (((1, 2), (1,)), ((1, 2), (1, 1)), ((5,), (1,)), ((1,), (4,))):
        with pytest.raises(UserError, match="name as many layers of 0 to 4 as of 0 to 3, none of the latter"):
            fresh(Config(reads=reads, writes=writes), decoder, ("beside",), 1, 0)
    with pytest.raises(UserError, match="heads is 3, which does not divide the base's width 16"):
        adapt(Config(heads=3), decoder)
    with pytest.raises(UserError, match="the base is a decoder, the model beside it an encoder"):
        adapt(Config(), replace(decoder, beside=tiny.base("encoder")))
    with pytest.raises(UserError, match="another tokenizer"):
        adapt(Config(), replace(decoder, beside=tiny.base("decoder")))


def test_a_router_belongs_to_both_models(tmp_path):
    base, pool = pair(), POOL
    fitted = Fitted({"model": connections(TWO), "places": {}, "knobs": {}}, pool.names)
    router_file.save(tmp_path, METHOD, TWO, base, pool, fitted)
    found, _ = router_file.load(tmp_path, METHOD, TWO, base, pool)
    jax.tree.map(same, found.router["model"], fitted.router["model"])
    for other in (None, random_base(FIRST, 2, 1.0)):
        with pytest.raises(UserError, match="fitted on another base"):
            router_file.load(tmp_path, METHOD, TWO, replace(base, beside=other), pool)


@pytest.mark.slow
def test_an_encoder_attends_in_both_directions():
    fit, batch = worlds.fitted("encoder", "calm"), worlds.batch(worlds.standard("encoder"))
    arrays = fit.arrays
    model = arrays["router"]["model"]
    assert np.abs(model["o"]).max() > 0
    first = batch._replace(tokens=batch.tokens.at[:, 1].add(1))
    one, other = (score(fit.adapted, arrays, b)[0] for b in (batch, first))
    assert np.abs(one - other).max() > 1e-3
