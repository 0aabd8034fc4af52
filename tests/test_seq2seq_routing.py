"""Routing in a seq2seq: the contract's checks that bear on its two sides, for methods of each grain."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import world as worlds

from moejax.adapted import Adapted, score, start, step
from moejax.evaluate import router_file
from moejax.experts import bank as banks
from moejax.experts.files import read
from moejax.experts.merge_deltas import patched, task_vector
from moejax.experts.pool import pool_of
from moejax.models.weights import random_base, save
from moejax.places import EXPERTS, Lora, Uniform, own_expert
from moejax.types import NotApplicable, UserError

KIND = "seq2seq"
LINES = ("base", "uniform", "arrow", "phatgoose", "own_expert", "lorahub", "granularity(example)")
RANK = {"uniform": 1, "arrow": 3, "phatgoose": 3, "own_expert": 2, "lorahub": 1, "granularity(example)": 2}
REFUSED = ("calm", "mole", "mole(layer)", "we_moe", "adapterfusion(lora)", "routellm(bert)")
CLOSE = {"rtol": 0, "atol": 1e-4}
START, STEP = jax.jit(start, static_argnums=(0, 3)), jax.jit(step, static_argnums=0)
everyone = pytest.mark.parametrize("line", LINES)


def holding(claim):
    return pytest.mark.parametrize(
        "line", [n for n in LINES[1:] if claim in worlds.load(worlds.LINES[n][0]).card.holds]
    )


@pytest.fixture
def batch():
    return worlds.batch(worlds.standard(KIND))


@everyone
def test_every_linear_of_both_sides_is_weighed_where_an_expert_adapts_it(line, batch):
    fit = worlds.fitted(KIND, line)
    found, weights = worlds.look(fit, batch)
    bare = worlds.scores(worlds.fitted(KIND, "base"), batch)
    if line == "base":
        assert not weights
        return
    assert np.abs(found - bare)[np.asarray(batch.answer)].max() > 0.1
    assert weights.keys() == fit.arrays["bank"].sites.keys() >= {path for path, _ in tiny.BESIDE}
    for path, w in weights.items():
        stack = jax.device_get(fit.arrays["bank"].sites[path])
        usable = np.where(stack.slot[:, None] >= 0, stack.present[stack.slot], False)[-len(w) :]
        inside = tiny.CONFIGS[KIND].stacks[path.split("/")[0]]
        tokens = batch.targets.shape[1] if path.startswith("layers/") else batch.tokens.shape[1]
        assert w.shape == (inside, *(4, tokens)[: RANK[line] - 1], worlds.CAPACITY) and np.isfinite(w).all()
        assert not w[~np.broadcast_to(usable.reshape(inside, *(1,) * (w.ndim - 2), -1), w.shape)].any()
        assert w.any()


@everyone
def test_a_row_is_the_same_among_others_and_however_padded(line, batch):
    fit, other = worlds.fitted(KIND, line), worlds.batch(worlds.standard(KIND), seed=77)
    before, moved = worlds.scores(fit, batch), {}
    for name, leaf in batch._asdict().items():  # row 1 becomes row 3, its text three places to the right
        if leaf is not None:
            row = jnp.roll(leaf[1], 3) if name in ("tokens", "mask", "prompt") else leaf[1]
            moved[name] = getattr(other, name).at[3].set(row)
    after, real = worlds.scores(fit, batch._replace(**moved)), np.asarray(batch.answer[1])
    np.testing.assert_allclose(after[3][real], before[1][real], **CLOSE)


@everyone
def test_no_weight_follows_an_answer(line, batch):
    """A step's weights in the decoder may follow its own token: there the start token's alone must not change."""
    fit = worlds.fitted(KIND, line)
    before = worlds.look(fit, batch)[1]
    other = batch._replace(targets=(batch.targets + 7) % tiny.VOCAB, answer=batch.answer[::-1])
    after = worlds.look(fit, other)[1]
    for path, w in before.items():
        own = w.ndim == 4 and path.startswith("layers/")
        assert np.array_equal(*((x[:, :, 0] if own else x) for x in (w, after[path])))


@everyone
def test_cached_decoding_is_the_uncached_forward(line, batch):
    fit = worlds.fitted(KIND, line)
    batch = batch._replace(answer=jnp.ones_like(batch.answer))
    wanted = worlds.scores(fit, batch)
    logits, state = START(fit.adapted, fit.arrays, batch, 6)
    for i in range(6):
        got = jnp.take_along_axis(jax.nn.log_softmax(logits), batch.targets[:, i, None], axis=1)
        np.testing.assert_allclose(got[:, 0], wanted[:, i], **CLOSE)
        logits, state = STEP(fit.adapted, fit.arrays, batch.targets[:, i], state)


@everyone
def test_a_saved_router_finds_its_experts_and_a_dead_one_is_not_chosen(line, batch, tmp_path):
    world, fit = worlds.standard(KIND, line), worlds.fitted(KIND, line)
    before = worlds.scores(fit, batch)
    router_file.save(tmp_path, fit.method, fit.config, world.base, fit.pool, fit.router)
    turned = worlds.make(KIND, *reversed(worlds.NAMES), line=line).pool
    router, pool = router_file.load(tmp_path, fit.method, fit.config, world.base, turned)
    arrays = fit.method.arrays(fit.config, world.base, pool, router)
    nobody = worlds.with_alive(fit, world.base, fit.arrays["bank"].alive & False)
    with worlds.compiles() as names:
        assert np.array_equal(worlds.scores(fit, batch, arrays), before)
        found, weights = worlds.look(fit, batch, nobody)
    assert names == [] and not any(w.any() for w in weights.values())
    np.testing.assert_allclose(found, worlds.scores(worlds.fitted(KIND, "base"), batch), **CLOSE)


@holding("silent")
def test_silent_experts_are_the_base(line, batch):
    world, fit = worlds.standard(KIND, line), worlds.fitted(KIND, line)
    pool = worlds.silent(fit.pool)
    arrays = fit.method.arrays(fit.config, world.base, pool, fit.router)
    bare = worlds.scores(worlds.fitted(KIND, "base"), batch)
    np.testing.assert_allclose(worlds.scores(fit, batch, arrays), bare, **CLOSE)


@holding("single")
def test_one_expert_alone_is_that_expert(line, batch):
    world, own = worlds.make(KIND, "ann", line=line), worlds.fitted(KIND, "own_expert")
    batch = batch._replace(expert=batch.expert * 0)
    np.testing.assert_allclose(
        worlds.scores(worlds.fit(world, line), batch), worlds.scores(own, batch), **CLOSE
    )


def test_an_own_expert_in_another_row_changes_nothing_here(batch):
    fit = worlds.fitted(KIND, "own_expert")
    before = worlds.scores(fit, batch)
    after = worlds.scores(fit, batch._replace(expert=batch.expert.at[0].set(2)))
    assert np.array_equal(after[1:], before[1:]) and np.abs(after[0] - before[0]).max() > 0.1


@pytest.mark.parametrize("line", REFUSED)
def test_methods_of_one_stack_of_layers_say_so(line):
    with pytest.raises(
        NotApplicable, match="works on the layers of an encoder or a decoder, and the base is a seq2seq"
    ):
        worlds.fit(worlds.standard(KIND, line), line)


def test_a_misspelt_path_of_either_side_raises(batch):
    base = tiny.base(KIND)
    arrays = {"params": base.params, "bank": tiny.pool(base, "ann").bank, "router": {}, "labels": None}
    for path in ("encoder_layers/attn/w", "cross_layers/attn/k", "layers/cross/k"):
        with pytest.raises(ValueError, match="matches the place"):
            score(Adapted(base.model, ((path, Lora("output", Uniform())),)), arrays, batch)
    good = Adapted(base.model, (("encoder_layers/mlp/gate", Lora("output", Uniform())),))
    logits, state = START(good, arrays, batch, 2)
    STEP(good, arrays, jnp.argmax(logits, -1), state)  # the encoder is not met again


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_full_fine_tune_is_an_expert_of_both_sides(batch, tmp_path):
    """Read from its folder, worn by a row it is that model; a tied one has no head for the base's."""
    base = tiny.base(KIND)
    moved = jax.tree.map(
        lambda leaf: leaf + 0.1 * np.cos(np.arange(leaf.size)).reshape(leaf.shape), base.params
    )
    outside = ("embed", "encoder_distance", "distance", "encoder_norm", "norm", "lm_head")
    moved = jax.tree.map(jnp.asarray, moved | {name: base.params[name] for name in outside})
    save(replace(base, params=moved), tmp_path / "ann")
    (tmp_path / "ann" / "moejax.json").write_text('{"format": 1, "kind": "delta"}')
    expert, _ = read(tmp_path / "ann", base.sites, base.shapes, None, homes=base.homes)
    assert {path for path, _ in expert.deltas} > base.shapes.keys() and not expert.rest
    assert ("encoder_layers/attn/q", 1) in expert.deltas and ("cross_layers/cross/k", 0) in expert.deltas
    pool = pool_of([expert], base.sites, base.shapes, base.layers)
    arrays = {"params": base.params, "bank": banks.on_device(pool.bank), "router": {}, "labels": None}
    found = score(
        Adapted(base.model, EXPERTS, route=own_expert), arrays, batch._replace(expert=batch.expert * 0)
    )[0]
    none = arrays | {"params": moved, "bank": tiny.pool(base, "ann").bank}
    wanted, real = score(Adapted(base.model), none, batch)[0], np.asarray(batch.answer)
    np.testing.assert_allclose(np.asarray(found)[real], np.asarray(wanted)[real], **CLOSE)
    assert np.abs(wanted - worlds.scores(worlds.fitted(KIND, "base"), batch)).max() > 0.1
    vector = task_vector(pool.bank, {}, pool.names, np.ones(1), base.layers)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), patched(base.params, vector), moved)
    save(random_base(replace(tiny.CONFIGS[KIND], tied=True)), tmp_path / "tied")
    with pytest.raises(UserError, match="another architecture"):
        read(tmp_path / "tied", base.sites, base.shapes, None, homes=base.homes)


def test_training_moves_the_experts_of_both_sides(tmp_path):
    from moejax.train.experts import Recipe, train_together
    from moejax.train.optimiser import Optimiser
    from moejax.train.work import Work

    world = worlds.standard(KIND)
    rows = {name: world.data[name].train for name in world.pool.names}
    targets = ("encoder_layers/attn/q", "cross_layers/cross/v", "layers/attn/q")
    recipe = Recipe(rank=2, targets=targets, batch=4, optimiser=Optimiser(1e-2, 2))
    found = train_together(world.base, rows, recipe, Work(tmp_path))
    for expert in found.values():
        assert set(expert.loras) == {site for site in world.base.sites.values() if site[0] in targets}
        assert all(np.abs(one.b).max() > 0 for one in expert.loras.values())


def test_lowest_adapted_layer_is_none_below_which_the_bare_base_runs():
    assert banks.lowest(tiny.pool(tiny.base(KIND), "ann").bank) == 0
