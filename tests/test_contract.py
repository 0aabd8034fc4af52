"""One contract for all methods, on both bases."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import world as worlds

from moejax.adapted import score, start, step
from moejax.contract import Fitted, on_disk
from moejax.evaluate import router_file
from moejax.experts import bank as banks
from moejax.experts.merge import merged
from moejax.experts.pool import pool_of
from moejax.methods import TABLE, load
from moejax.types import AccessDenied, NotApplicable, UserError

KINDS = ("encoder", "decoder")
RANK = {"Task": 1, "Example": 2, "Step": 3}
OTHER = dict.fromkeys(
    [
        "own_expert",
        "own_expert(bottleneck)",
        "own_expert(delta)",
        "mole",
        "mole(layer)",
        "mole(matrix)",
        "granularity(example)",
    ],
    2,
) | {"granularity(task)": 1}
"""Lines at another grain than their card's cell: the oracle is told the task of each row; MoLE's equations weigh a
request, where the survey says Step."""
MERGED = {"task_arithmetic(delta)"}
"""Lines that merge everything into the parameters: there is nothing left to weigh."""
CLOSE = {"rtol": 0, "atol": 1e-4}  # scores are log-probabilities of size 1 to 10

START, STEP = jax.jit(start, static_argnums=(0, 3)), jax.jit(step, static_argnums=0)
ON_BOTH = ("base", "uniform", "arrow", "phatgoose", "mole")


def on(kinds, lines=tuple(worlds.LINES)):
    """Lines on bases; most on a decoder are among the slow tests."""
    cells = [(line, kind) for line in lines for kind in kinds]
    slow = {cell: [pytest.mark.slow] for cell in cells if cell[1] == "decoder" and cell[0] not in ON_BOTH}
    return pytest.mark.parametrize(
        ("line", "kind"), [pytest.param(*cell, marks=slow.get(cell, [])) for cell in cells]
    )


everyone = on(KINDS)


def that(claim):
    """The lines whose card makes a claim that not all methods make; a line that trains the experts is left out."""
    lines = [
        line
        for line, (name, options) in worlds.LINES.items()
        if claim in load(name).card.holds and not options.get("train_loras")
    ]
    return on(KINDS, lines)


opened = on(KINDS, [line for line, (name, _) in worlds.LINES.items() if load(name).card.open])


def usable(bank, path):
    """[l, e]: which experts may be used at each layer of a site; a block may use all that are alive."""
    if path not in bank.sites:
        return np.broadcast_to(np.asarray(bank.alive), (tiny.CONFIGS["encoder"].layers, len(bank.alive)))
    stack = jax.device_get(bank.sites[path])
    return np.where(stack.slot[:, None] >= 0, stack.present[stack.slot], False) & np.asarray(bank.alive)


def over_rows(allowed, w):
    """[l, e] against weights [l, …, e]."""
    return np.broadcast_to(allowed.reshape(len(allowed), *(1,) * (w.ndim - 2), -1), w.shape)


@everyone
def test_weights_have_the_rank_of_their_granularity_and_are_zero_off_the_selection(kind, line):
    fit, batch = worlds.fitted(kind, line), worlds.batch(worlds.standard(kind, line))
    (granularity,), axes = fit.method.card.axes.input_granularity or {None}, fit.method.card.axes
    weights = worlds.look(fit, batch)[1]
    assert any(w.any() for w in weights.values()) == (line not in MERGED | {"base"})
    for path, w in weights.items():
        rank = OTHER.get(line, RANK.get(granularity))
        assert w.ndim == 1 + rank  # the layers come first
        assert np.isfinite(w).all()
        allowed = over_rows(usable(fit.arrays["bank"], path), w)
        assert not w[~allowed].any()  # absent here, in a free slot, or in a layer that nobody adapts
        if axes.expert_selection == {"Sparse"}:
            assert (w != 0).sum(-1).max() <= getattr(fit.config, "k", 1)


@on(
    KINDS,
    [
        n
        for n, (name, has) in worlds.LINES.items()
        if load(name).merge and has.get("kind") not in ("bottleneck", "delta")
    ],
)
def test_a_merge_does_what_the_router_does(kind, line):
    fit, world = worlds.fitted(kind, line), worlds.standard(kind)
    batch, bank = worlds.batch(world), fit.arrays["bank"]
    weights, mode = fit.method.merge(fit.config, fit.pool, fit.router)
    one = merged(bank, weights, mode, "one")
    alone = pool_of([one], world.base.sites, world.base.shapes, world.base.layers)
    uniform = load("uniform")
    arrays = uniform.arrays(
        uniform.Config(), world.base, alone, Fitted({"places": {}, "knobs": {}}, ("one",))
    )
    adapted = uniform.adapt(uniform.Config(), world.base)
    found, bare = (
        np.asarray(score(adapted, arrays | {"bank": some}, batch)[0])
        for some in (alone.bank, worlds.silent(alone).bank)
    )
    assert np.abs(found - bare).max() > 1e-3
    np.testing.assert_allclose(found, worlds.scores(fit, batch), **CLOSE)


@that("simplex")
def test_weights_are_a_mean(kind, line):
    fit, batch = worlds.fitted(kind, line), worlds.batch(worlds.standard(kind, line))
    names = len(fit.pool.names)
    for path, w in worlds.look(fit, batch)[1].items():
        assert (w >= 0).all() and (w.sum(-1) < 1 + 1e-5).all()
        everyone_adapts = usable(fit.arrays["bank"], path).sum(-1) == names
        np.testing.assert_allclose(w[everyone_adapts].sum(-1), 1, atol=1e-5)


@pytest.mark.slow
@on(["encoder"], TABLE)
def test_jit_is_eager(kind, line):
    fit, batch = worlds.fitted(kind, line), worlds.batch(worlds.standard(kind, line))
    with jax.disable_jit():
        eager = score(fit.adapted, fit.arrays, batch)[0]
    np.testing.assert_allclose(worlds.scores(fit, batch), eager, **CLOSE)


@everyone
def test_a_second_fit_compiles_nothing(kind, line):
    world, fit = worlds.standard(kind, line), worlds.fitted(kind, line)
    worlds.scores(fit, worlds.batch(world))
    other = world._replace(data=dict(zip(world.data, reversed(world.data.values()), strict=True)))
    other = other._replace(base=another_base(kind))
    with worlds.compiles() as names:
        again = worlds.fit(other, line, seed=3)
        worlds.scores(again, worlds.batch(world, seed=6))
    assert again.adapted == fit.adapted and hash(again.adapted) == hash(fit.adapted)
    assert names == []


another_base = cache(tiny.fresh)


@everyone
def test_a_dead_expert_is_never_chosen(kind, line):
    if line in ("base", "multitask"):
        return  # no expert of the pool is in use
    fit, batch = worlds.fitted(kind, line), worlds.batch(worlds.standard(kind, line))
    bank = fit.arrays["bank"]
    base = worlds.standard(kind, line).base
    found, weights = worlds.look(fit, batch, worlds.with_alive(fit, base, bank.alive.at[1].set(False)))
    assert np.isfinite(found).all()
    assert not any(w[..., 1].any() for w in weights.values())
    nobody = worlds.with_alive(fit, base, bank.alive & False)
    found, weights = worlds.look(fit, batch, nobody)
    assert not any(w.any() for w in weights.values())
    np.testing.assert_allclose(found, worlds.scores(worlds.fitted(kind, "base"), batch), **CLOSE)


@everyone
def test_a_row_is_the_same_among_others_and_however_padded(kind, line):
    world, fit = worlds.standard(kind, line), worlds.fitted(kind, line)
    batch = worlds.batch(world)
    other = worlds.batch(world, seed=77)
    before, weights = worlds.look(fit, batch)
    moved = {}  # row 1 becomes row 3, three places to the right, among other rows
    for name, leaf in batch._asdict().items():
        if leaf is not None:
            row = jnp.roll(leaf[1], 3) if leaf.ndim == 2 and name not in ("choices", "query") else leaf[1]
            moved[name] = getattr(other, name).at[3].set(row)
    after, again = worlds.look(fit, batch._replace(**moved))
    real = np.asarray(batch.mask[1])
    if kind == "encoder":
        np.testing.assert_allclose(after[3], before[1], **CLOSE)
    else:
        np.testing.assert_allclose(np.roll(after[3], -3)[real], before[1][real], **CLOSE)
    for path, w in weights.items():
        if w.ndim == 4:
            np.testing.assert_allclose(
                np.roll(again[path][:, 3], -3, axis=1)[:, real], w[:, 1, real], **CLOSE
            )
        elif w.ndim == 3:
            np.testing.assert_allclose(again[path][:, 3], w[:, 1], **CLOSE)
        else:
            assert np.array_equal(again[path], w)


@everyone
def test_no_weight_follows_an_answer_a_choice_or_the_owner(kind, line):
    fit, batch = worlds.fitted(kind, line), worlds.batch(worlds.standard(kind, line))
    before = worlds.look(fit, batch)[1]
    if "test_task" not in fit.method.needs(fit.config):
        batch = batch._replace(expert=(batch.expert + 1) % 3)
    if kind == "encoder":
        other = batch._replace(targets=(batch.targets + 1) % 4, choices=batch.choices[:, ::-1])
    else:
        answers = batch.mask & ~batch.prompt
        tokens = jnp.where(answers, (batch.tokens + 7) % tiny.VOCAB, batch.tokens)
        other = batch._replace(tokens=tokens, targets=batch.targets[:, ::-1], answer=~batch.answer)
    after = worlds.look(fit, other)[1]
    asked = np.asarray(batch.prompt)  # a step's weights may follow its own token, never a later one
    for path, w in before.items():
        seen = (w[:, asked], after[path][:, asked]) if w.ndim == 4 else (w, after[path])
        assert np.array_equal(*seen)


@everyone
def test_names_say_nothing_and_a_saved_router_finds_its_experts(kind, line, tmp_path):
    world, fit = worlds.standard(kind, line), worlds.fitted(kind, line)
    batch = worlds.batch(world)
    before = worlds.scores(fit, batch)
    renamed = replace(fit.pool, names=("x", "y", "z"))
    arrays = fit.method.arrays(fit.config, world.base, renamed, fit.router)
    assert np.array_equal(worlds.scores(fit, batch, arrays), before)
    router_file.save(tmp_path, fit.method, fit.config, world.base, fit.pool, fit.router)
    turned = worlds.make(kind, *reversed(worlds.NAMES), line=line).pool
    router, pool = router_file.load(tmp_path, fit.method, fit.config, world.base, turned)
    assert pool.names == fit.pool.names and banks.size(pool.bank) == worlds.CAPACITY
    arrays = fit.method.arrays(fit.config, world.base, pool, router)
    assert np.array_equal(worlds.scores(fit, batch, arrays), before)


@opened
def test_an_appended_expert_joins_an_open_router_and_compiles_nothing(kind, line, tmp_path):
    world, fit = worlds.standard(kind, line), worlds.fitted(kind, line)
    batch = worlds.batch(world)
    before, weights = worlds.look(fit, batch)
    router_file.save(tmp_path, fit.method, fit.config, world.base, fit.pool, fit.router)

    def joined(pool, name):
        pool = pool.append(worlds.newcomer(world, line, name))
        names = [on_disk(extra, world.base) for extra in fit.method.extras(fit.config)]
        extras = {name: stand_in(pool, name) for name in names}
        pool = pool.with_extras({name: extras})
        router, pool = router_file.load(tmp_path, fit.method, fit.config, world.base, pool)
        return pool, worlds.look(fit, batch, fit.method.arrays(fit.config, world.base, pool, router))

    pool, _ = joined(fit.pool, "dan")
    with worlds.compiles() as names:
        pool, (after, more) = joined(pool, "eve")
    assert names == []
    if line != "base":
        assert not np.allclose(after, before, atol=1e-3)
        assert any(w[..., 4].any() for w in more.values())
        assert not any(w[..., 4].any() for w in weights.values())


def stand_in(pool, extra):
    """What the last expert's contributor might hand over."""
    rng = np.random.default_rng(3)
    if extra == "samples":
        return [{"input": "3 1 4"}, {"input": "1 5 9"}]
    if extra.startswith("mean"):  # of a text that one of the requests says
        return np.asarray(worlds.batch(worlds.standard("encoder")).query[len(pool.names) % 4])
    return {path: rng.normal(size=s.a.shape[::3]).astype(np.float32) for path, s in pool.bank.sites.items()}


@pytest.mark.parametrize("line", worlds.LINES)
def test_a_closed_router_refuses_another_pool(line, tmp_path):
    world, fit = worlds.standard("encoder", line), worlds.fitted("encoder", line)
    router_file.save(tmp_path, fit.method, fit.config, world.base, fit.pool, fit.router)
    if not fit.method.card.open:
        pool = world.pool.append(worlds.newcomer(world, line, "dan"))
        with pytest.raises(UserError, match="the pool has expert 'dan'"):
            router_file.load(tmp_path, fit.method, fit.config, world.base, pool)


@on(["decoder"])
def test_cached_decoding_is_the_uncached_forward(line, kind):
    world, fit = worlds.standard(kind, line), worlds.fitted(kind, line)
    full = worlds.batch(world)
    real = jnp.arange(full.tokens.shape[1])[None] < 6
    short = jnp.arange(full.tokens.shape[1])[None] >= jnp.arange(4)[:, None] % 3  # padded on the left
    full = full._replace(mask=real & short, prompt=real & short & (jnp.arange(12) < 4)[None])
    wanted = worlds.scores(fit, full)
    given = jax.tree.map(lambda leaf: leaf[:, :4] if leaf.ndim == 2 else leaf, full)._replace(
        query=full.query
    )
    logits, state = START(fit.adapted, fit.arrays, given, 2)
    for i in (4, 5):
        got = jnp.take_along_axis(jax.nn.log_softmax(logits), full.tokens[:, i, None], axis=1)
        np.testing.assert_allclose(got[:, 0], wanted[:, i - 1], **CLOSE)
        if i == 4:
            logits, state = STEP(fit.adapted, fit.arrays, full.tokens[:, i], state)


@that("silent")
def test_silent_experts_are_the_base(kind, line):
    world = worlds.standard(kind, line)
    world = world._replace(pool=worlds.silent(world.pool))
    batch, bare = worlds.batch(world), worlds.fitted(kind, "base")
    np.testing.assert_allclose(
        worlds.scores(worlds.fit(world, line), batch), worlds.scores(bare, batch), **CLOSE
    )


def owner(line):
    """The oracle over experts of the kind that a line routes."""
    kind = worlds.routes(line)
    return f"own_expert({kind})" if kind in ("bottleneck", "delta") else "own_expert"


@that("single")
def test_one_expert_alone_is_that_expert(kind, line):
    world = worlds.make(kind, "ann", line=line)
    batch, own = worlds.batch(world), worlds.fitted(kind, owner(line))
    assert not batch.expert.any()  # every row belongs to the first expert, ann
    np.testing.assert_allclose(
        worlds.scores(worlds.fit(world, line), batch), worlds.scores(own, batch), **CLOSE
    )


@that("equivariant")
def test_fitting_on_a_permuted_pool_permutes_the_weights(kind, line):
    world, fit = worlds.standard(kind, line), worlds.fitted(kind, line)
    batch = worlds.batch(world)
    turned = worlds.make(kind, *reversed(worlds.NAMES), line=line)
    before, weights = worlds.look(fit, batch)
    after, again = worlds.look(worlds.fit(turned, line), batch)
    np.testing.assert_allclose(after, before, **CLOSE)
    for path, w in weights.items():
        if w.shape[-1] == worlds.CAPACITY:
            np.testing.assert_allclose(again[path][..., [2, 1, 0, 3, 4]], w, **CLOSE)


@everyone
def test_what_is_read_is_what_the_card_says(kind, line):
    world, fit = worlds.standard(kind, line), worlds.fitted(kind, line)
    needs, method = fit.method.needs(fit.config), fit.method
    if not worlds.LINES[line][1]:
        assert needs == method.card.grants
    at_test = {"test_task"}  # read while answering, as Batch.expert
    for denied in sorted(needs - {"own"} - at_test):
        allowed = worlds.grants(world, needs - {denied})
        with pytest.raises(AccessDenied, match=denied):
            method.fit(fit.config, world.base, fit.pool, allowed, worlds.nowhere())
    for extra in sorted(method.extras(fit.config)):
        with pytest.raises(AccessDenied, match=extra):
            method.fit(fit.config, world.base, fit.pool.allow(*method.extras(fit.config) - {extra}),
                       worlds.grants(world, needs), worlds.nowhere())  # fmt: skip
        bare = world.pool.allow(*method.extras(fit.config))
        with pytest.raises(NotApplicable, match=f"ann has no {extra}"):
            method.fit(fit.config, world.base, bare, worlds.grants(world, needs), worlds.nowhere())
    allowed = worlds.grants(world, needs)
    worlds.fit(world, line, given=fit.pool, allowed=allowed)
    assert allowed.log == needs - {"own"} - at_test


def test_a_rogue_method_is_denied_everywhere():
    world = worlds.standard("encoder")
    nothing = worlds.grants(world, frozenset())
    for name in ("expert_labels", "expert_inputs"):
        with pytest.raises(AccessDenied, match=name):
            getattr(nothing, name)("ann")
    for name in ("general", "target_labels", "target_inputs", "test_labels", "test_inputs"):
        with pytest.raises(AccessDenied, match=name):
            getattr(nothing, name)()
    everything = {name for name in dir(nothing) if not name.startswith("_")}
    assert everything == nothing.log | {"log"}  # there is no other way to rows, and every attempt is noted
    pool = world.pool.with_extras({name: {"gate": {}, "samples": ["text"]} for name in world.pool.names})
    for extra in ("gate", "samples", "mean"):
        with pytest.raises(AccessDenied, match=extra):
            pool.allow("vectors").extra(extra)
        with pytest.raises(AccessDenied, match=extra):
            pool.stacked_extra(extra)
