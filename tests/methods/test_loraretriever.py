"""LoraRetriever: the checks and worked numbers of its card, on one linear and on a small base."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import world as worlds
from one_linear import base_of, lora, pool, random_loras, sizes

from moejax.contract import Fitted
from moejax.evaluate.grants import Grants
from moejax.experts.pool import pool_of
from moejax.methods.loraretriever import METHOD, Config, Retrieve, adapt, contrast, encoded, similarity
from moejax.routing import select
from moejax.train.work import Work
from moejax.types import NotApplicable

X = np.random.default_rng(3).normal(size=(6, 4)).astype(np.float32)
Q = np.float32([[1, 0.1, 0], [0.1, 1, 0], [0, 0.1, 1], [1, 1, 0.2], [0.1, 1, 1], [1, 0.2, 1]])


EYE = np.eye(3)


def delta(loras, x, queries, means=EYE, expert=None, **options):
    """What the retrieved experts add to rows x with these queries [n, q], and their weights [n, e]."""
    d, f = sizes(loras)
    base, some, config = base_of(d, f), pool(loras, d, f), Config(**options)
    router = {"model": {"mean": jnp.asarray(means, jnp.float32)[: len(loras)]}, "places": {}, "knobs": {}}
    arrays = METHOD.arrays(config, base, some, Fitted(router, some.names))
    adapted = adapt(config, base)
    return _run(adapted, {n: arrays[n] for n in ("params", "bank", "router")}, x, queries, expert)


def _run(adapted, arrays, x, queries, expert):
    from one_linear import run

    class Asked:
        """The route as it is, for a batch that knows its queries."""

        def __init__(self, route):
            self.route = route

        def __call__(self, arrays, batch):
            return self.route(arrays, batch._replace(query=jnp.asarray(queries, jnp.float32)))

    y, added, w = run(replace(adapted, route=Asked(adapted.route)), arrays, x, expert)
    return np.asarray(added), np.asarray(w)


def close(one, other, **options):
    np.testing.assert_allclose(one, other, **{"rtol": 0, "atol": 1e-5} | options)


def alone(one, x):
    return one.alpha / len(one.a) * (x @ one.a.T) @ one.b


def test_one_expert_is_that_expert_whatever_the_mode():
    some = random_loras(3)
    nearest = [np.argmax(similarity(jnp.asarray(q[None]), jnp.eye(3), "cosine")) for q in Q]
    wanted = np.stack([alone(some[e], x) for e, x in zip(nearest, X, strict=True)])
    for options in ({"k": 1}, {"k": 1, "mode": "fusion"}, {"mode": "selection"}):
        close(delta(some, X, Q, **options)[0], wanted)


def test_fusion_is_the_mixture_where_one_factor_is_common():
    one, two, three = random_loras(3)
    for some in (
        [one, two._replace(a=one.a), three._replace(a=one.a)],
        [one, two._replace(b=one.b), three._replace(b=one.b)],
    ):
        close(delta(some, X, Q, mode="fusion")[0], delta(some, X, Q)[0])
    assert (
        np.abs(delta([one, two, three], X, Q, mode="fusion")[0] - delta([one, two, three], X, Q)[0]).max()
        > 0.1
    )


@pytest.mark.parametrize(("mode", "wanted"), [("mixture", 26.0), ("fusion", 24.0)])
def test_hand_example(mode, wanted):
    some = [lora([[1.0, 0.0]], [[2.0]], alpha=2.0), lora([[0.0, 1.0]], [[4.0]], alpha=2.0)]
    found, w = delta(some, np.float32([[3, 5]]), [[1, 1]], np.eye(2), mode=mode, k=2)
    close(found, [[wanted]])
    close(w, [[0.5, 0.5]])


@pytest.mark.parametrize(("kind", "wanted", "best"), [("cosine", (1.0, 0.8), 0), ("inner", (0.6, 0.8), 1)])
def test_the_inner_product_prefers_tight_clusters(kind, wanted, best):
    means = jnp.asarray(
        [np.mean([[0.6, 0.8], [0.6, -0.8]], axis=0), np.mean([[0.8, 0.6]] * 2, axis=0)], jnp.float32
    )
    found = similarity(jnp.asarray([[1.0, 0.0]]), means, kind)
    close(found[0], wanted, atol=1e-6)
    assert int(jnp.argmax(found)) == best


def test_copies_of_one_expert_fuse_to_that_expert():
    (one,) = random_loras(1)
    close(delta([one, one, one], X, Q, mode="fusion")[0], alone(one, X))


def test_a_mixed_batch_is_its_rows_one_by_one():
    some = random_loras(3)
    for mode in ("mixture", "fusion"):
        whole, w = delta(some, X, Q, mode=mode, k=2)
        assert len({tuple(row) for row in w}) > 2
        for i in range(len(X)):
            close(delta(some, X[i : i + 1], Q[i : i + 1], mode=mode, k=2)[0][0], whole[i], atol=1e-6)


@pytest.mark.parametrize("k", [1, 2])
def test_a_request_is_kept_from_its_own_expert_where_that_is_asked_for(k):
    own = np.array([0, 1, 2, 0, 1, 2])
    _, w = delta(random_loras(3), X, Q, k=k, exclude_own=True, expert=jnp.asarray(own))
    assert not w[np.arange(6), own].any()
    assert ((w > 0).sum(axis=1) == k).all()
    close(w.sum(axis=1), np.ones(6))
    assert METHOD.needs(Config(exclude_own=True)) == {"own", "expert_inputs", "test_task"}


def test_order_changes_nothing_and_a_change_of_basis_changes_fusion_alone():
    some, turned = random_loras(3), [2, 0, 1]
    for mode in ("mixture", "fusion"):
        before, w = delta(some, X, Q, mode=mode, k=2)
        after, moved = delta([some[i] for i in turned], X, Q, np.eye(3)[turned], mode=mode, k=2)
        close(after, before)
        close(moved, w[:, turned])
    m = np.float32([[2, 1], [0.5, 1]])
    based = [some[0]._replace(a=m @ some[0].a, b=np.linalg.inv(m).T @ some[0].b), *some[1:]]
    close(delta(based, X, Q)[0], delta(some, X, Q)[0], atol=1e-4)
    assert np.abs(delta(based, X, Q, mode="fusion")[0] - delta(some, X, Q, mode="fusion")[0]).max() > 0.1


def test_weights_are_one_over_the_number_of_the_chosen():
    for k, chosen in ((1, 1), (2, 2), (3, 3), (5, 3)):
        _, w = delta(random_loras(3), X, Q, k=k)
        assert ((w > 0).sum(axis=1) == chosen).all()
        close(w[w > 0], np.full((w > 0).sum(), 1 / chosen))


def test_a_free_slot_is_never_retrieved():
    arrays = {
        "router": {"model": {"mean": jnp.asarray([[0.1, 1.0], [1.0, 0.0]])}},
        "bank": worlds.standard("encoder").pool.bank._replace(alive=jnp.asarray([True, False])),
    }
    batch = worlds.batch(worlds.standard("encoder"))._replace(query=jnp.asarray([[1.0, 0.0]]))
    found = Retrieve("cosine", 2, False)(arrays, batch)
    close(select.dense(found, 2), [[1.0, 0.0]])


def world_with(samples=4):
    """A world, its experts' own rows, and what contributors hand over."""
    world = worlds.standard("encoder")
    rows = {name: world.data[name].train for name in world.pool.names}
    extras = METHOD.contribute(
        Config(samples=samples), world.base, world.pool, rows, Work(worlds.nowhere().folder)
    )
    return world, rows, extras


def test_contributors_hand_over_their_own_requests_and_no_answer():
    world, rows, extras = world_with()
    for name, found in extras.items():
        said = rows[name].texts(np.arange(len(rows[name])))
        texts = [row["input"] for row in found["samples"]]
        assert len(texts) == 4 and len(set(texts)) == 4 and set(texts) <= set(said)
        assert all(row.keys() == {"input"} for row in found["samples"])
        close(found["mean@by-hash"], world.base.embedder(texts).mean(axis=0), atol=1e-6)


def fitted(world, extras, encoder, tmp_path, pool=None, **options):
    config = Config(encoder=encoder, **options)
    some = (pool or world.pool).with_extras(extras).allow(*METHOD.extras(config))
    return METHOD.fit(config, world.base, some, worlds.grants(world, METHOD.needs(config)), Work(tmp_path))


def test_centroids_are_what_samples_give_on_the_shelf(tmp_path):
    world, _, extras = world_with()
    one, other = (fitted(world, extras, name, tmp_path) for name in ("shelf", "centroids"))
    close(one.router["model"]["mean"], other.router["model"]["mean"], atol=1e-6)
    assert one.trained == other.trained == 0 and "project" not in one.router["model"]
    assert METHOD.extras(Config(encoder="centroids")) == {"mean"} and METHOD.needs(
        Config(encoder="centroids")
    ) == {"own"}


def test_a_centroid_of_another_encoder_is_refused(tmp_path):
    world, _, extras = world_with()
    foreign = {name: {"mean@f00-request": found["mean@by-hash"]} for name, found in extras.items()}
    with pytest.raises(
        NotApplicable, match="ann has mean@f00-request, made by another encoder, and no mean@by-hash"
    ):
        fitted(world, foreign, "centroids", tmp_path)


def test_without_an_encoder_the_row_says_so(tmp_path):
    world, _, extras = world_with()
    bare = world._replace(base=replace(world.base, embedder=None))
    with pytest.raises(NotApplicable, match="say --embedder minilm"):
        fitted(bare, extras, "shelf", tmp_path)


def test_training_tells_tasks_apart_that_the_shelf_confuses(tmp_path):
    world, _, _ = world_with()
    rng = np.random.default_rng(0)

    class Noisy:
        """What differs between tasks is in two small numbers; the others are loud and say nothing."""

        name = "noisy"

        def __call__(self, texts):
            task = np.array([int(text.split()[0]) % 3 for text in texts])
            loud = rng.normal(size=(len(texts), 6))
            return np.float32(np.concatenate([0.7 * np.eye(3)[task], loud], axis=1))

    def rows(task):
        some = tiny.rows(world.base, 40, seed=task)
        words = [f"{task} text"] * 40
        return replace(some, words=words, whole=some.whole._replace(query=Noisy()(words)))

    data = {name: worlds.Split(rows(task), rows(task)) for task, name in enumerate(world.pool.names)}
    base = replace(world.base, embedder=Noisy())
    own = world._replace(base=base, data=data)
    pairs = {name: some.train for name, some in data.items()}
    extras = METHOD.contribute(Config(), base, world.pool, pairs, Work(tmp_path / "own"))

    def right(encoder):
        found = fitted(own, extras, encoder, tmp_path / encoder, share=1.0, steps=300, rate=0.02)
        model, asked = found.router["model"], np.concatenate([Noisy()([f"{t} text"] * 50) for t in range(3)])
        like = similarity(encoded(model, jnp.asarray(asked)), model["mean"][:3], "cosine")
        return np.mean(np.argmax(like, axis=1) == np.repeat(np.arange(3), 50))

    assert right("shelf") < 0.75 and right("trained") > 0.9


def test_worked_contrast():
    pairs = jnp.asarray([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.6, 0.8]]])
    logits = np.array([[1.0, 0.6], [0.0, 0.8]]) / 0.5
    wanted = -np.mean(np.diag(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))))
    assert float(contrast(jnp.eye(2), pairs, 0.5)) == pytest.approx(wanted, abs=1e-6)


def test_an_expert_that_joins_keeps_the_encoder_that_was_trained(tmp_path):
    world, _, extras = world_with()
    before = fitted(world, extras, "trained", tmp_path, steps=20)
    samples = [{"input": "3 1 4"}, {"input": "1 5 9"}]
    grown = world.pool.append(tiny.expert(world.base, "dan")).with_extras(
        extras | {"dan": {"samples": samples}}
    )
    after = METHOD.extend(Config(), world.base, grown.allow("samples"), before)
    model = after.router["model"]
    np.testing.assert_array_equal(model["project"], before.router["model"]["project"])
    np.testing.assert_array_equal(model["mean"][:3], before.router["model"]["mean"][:3])
    vectors = jnp.asarray(world.base.embedder(["3 1 4", "1 5 9"]))
    close(model["mean"][3], jnp.mean(encoded(model, vectors), axis=0), atol=1e-6)


def test_two_fifths_of_the_tasks_train_the_encoder_whatever_their_order(tmp_path):
    world = worlds.standard("encoder")
    names = [f"x{i}" for i in range(10)]
    experts = [tiny.expert(world.base, name) for name in names]
    read = []

    class Noted(Grants):
        def expert_inputs(self, name):
            read.append(name)
            return super().expert_inputs(name)

    data = dict.fromkeys(names, world.data["ann"])
    extras = {name: {"samples": [{"input": "1 2"}]} for name in names}

    def project(order):
        read.clear()
        some = pool_of([experts[i] for i in order], world.base.sites, world.base.shapes, world.base.layers)
        given = some.with_extras(extras).allow("samples")
        found = METHOD.fit(
            Config(steps=3),
            world.base,
            given,
            Noted(frozenset({"expert_inputs"}), data),
            Work(tmp_path / str(order[0])),
        )
        return np.asarray(found.router["model"]["project"]), list(read)

    one, chosen = project(list(range(10)))
    other, again = project(list(range(9, -1, -1)))
    assert len(chosen) == 4 and chosen == again
    np.testing.assert_array_equal(one, other)
