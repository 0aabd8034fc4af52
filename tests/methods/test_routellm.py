"""RouteLLM: the checks and worked numbers of its card, and what it does on small bases."""

import math
from dataclasses import replace
from functools import partial
from itertools import combinations, pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import world as worlds
from sklearn.linear_model import LogisticRegression

from moejax.adapted import Adapted, score, start, step
from moejax.contract import Pair, Split
from moejax.methods.routellm import METHOD, Config, adapt, pair
from moejax.models.generate import generate
from moejax.models.weights import random_base
from moejax.places import EXPERTS
from moejax.routing import preference
from moejax.routing.bradley_terry import nearness, ratings, tiers
from moejax.train import judge
from moejax.train.battles import Battles, descend, epochs, fought, fresh, ranking, spread, won
from moejax.train.choose import Choose
from moejax.train.optimiser import Optimiser
from moejax.train.outcomes import Outcomes, alone, arrays, members, outcomes, wanted
from moejax.train.price import operations, prices
from moejax.train.work import Work
from moejax.types import Batch, NotApplicable, UserError

STRONG, WEAK = 0, 1


def elo(theta):
    """Ratings on the scale of chess, which the card's numbers have."""
    return 1000 + 400 / np.log(10.0) * theta


def factors(members, project=((1.0, 0.0), (0.0, 1.0)), classify=(1.0, 1.0)):
    return {
        name: jnp.asarray(leaf, jnp.float32)
        for name, leaf in (("members", members), ("project", project), ("classify", classify))
    }


# check 1
def test_the_worked_win_rate():
    model, v = factors(((3, 4), (1, 0))), jnp.array([[1.0, 2.0]])
    alone = [float(preference.lead(factors((row, (0, 0))), 0, 1, v)[0]) for row in ((3, 4), (1, 0))]
    np.testing.assert_allclose(alone, [2.2, 1.0], rtol=1e-6)
    np.testing.assert_allclose(preference.factorised(model, STRONG, WEAK, v), [0.768525], atol=5e-7)


# check 2
def test_both_ways_add_up_equal_members_tie_and_lengths_say_nothing():
    rng = np.random.default_rng(0)
    rows, v = rng.normal(size=(3, 4)), jnp.asarray(rng.normal(size=(5, 6)), jnp.float32)
    others = rng.normal(size=(4, 6)), rng.normal(size=4)
    model = factors(rows, *others)
    one, other = (preference.factorised(model, *pair, v) for pair in ((0, 1), (1, 0)))
    np.testing.assert_allclose(one + other, 1, atol=1e-6)
    assert np.ptp(one) > 0.01
    same = preference.factorised(factors(np.stack([rows[0], rows[0]]), *others), 0, 1, v)
    np.testing.assert_allclose(same, 0.5, atol=1e-7)
    longer = preference.factorised(factors(rows * [[7.0], [1.0], [1.0]], *others), 0, 1, v)
    np.testing.assert_allclose(longer, one, atol=1e-6)


# check 3
@pytest.mark.parametrize(("tied", "gap"), [(0, 190.8485), (1, 147.1907)])
def test_the_worked_ratings(tied, gap):
    wins = jnp.array([[0.0, 3 + tied / 2], [1 + tied / 2, 0.0]])
    found = elo(ratings(wins))
    np.testing.assert_allclose(found[0] - found[1], gap, atol=2e-3)
    assert tied or math.isclose(jax.nn.sigmoid(ratings(wins) @ jnp.array([1.0, -1.0])), 0.75, abs_tol=1e-6)


def released_ratings(a, b, winner, count, weight=None):
    """The released code's fit, in units of Elo: each battle twice, a tie as one win each."""
    a, b, winner = (np.concatenate([x, x]) for x in (a, b, winner))
    rows, y = np.zeros((len(a), count)), (winner == 0).astype(float)
    rows[np.arange(len(a)), a], rows[np.arange(len(a)), b] = math.log(10), -math.log(10)
    tie = winner == 2
    tie[len(tie) // 2 :] = False
    y[tie] = 1.0
    fit = LogisticRegression(fit_intercept=False, C=np.inf, tol=1e-10, max_iter=10000)
    fit.fit(rows, y, sample_weight=None if weight is None else np.concatenate([weight, weight]))
    return 400 * fit.coef_[0] + 1000


@pytest.mark.parametrize("weighted", [False, True])
def test_ratings_are_those_of_the_released_code(weighted):
    rng, n, m = np.random.default_rng(1), 300, 4
    a = rng.integers(0, m, n)
    b = (a + rng.integers(1, m, n)) % m
    winner, weight = rng.integers(0, 3, n), 10 ** rng.uniform(0, 2, n) if weighted else np.ones(n)
    wins = np.zeros((m, m))
    share = np.array([1.0, 0.0, 0.5])[winner] * weight
    np.add.at(wins, (a, b), share)
    np.add.at(wins, (b, a), weight - share)
    theirs = released_ratings(a, b, winner, m, weight)
    ours = np.asarray(elo(ratings(jnp.asarray(wins, jnp.float32))))
    np.testing.assert_allclose(ours - ours.mean(), theirs - theirs.mean(), atol=0.05)


def test_equal_weights_change_nothing_and_one_who_never_lost_stays_finite():
    wins = jnp.array([[0.0, 5.0, 3.0], [2.0, 0.0, 4.0], [1.0, 4.0, 0.0]])
    np.testing.assert_allclose(ratings(7.0 * wins), ratings(wins), atol=1e-5)
    never = ratings(jnp.array([[0.0, 6.0], [0.0, 0.0]]))
    assert np.isfinite(never).all() and never[0] > 2 and ratings(jnp.zeros((2, 2))).tolist() == [0, 0]


def test_tiers_are_the_best_of_all_ways_to_cut():
    rng = np.random.default_rng(2)
    for _ in range(5):
        scores = rng.normal(size=7)
        ordered = np.sort(scores)[::-1]
        costs = {
            cut: sum(np.var(part) for part in np.split(ordered, cut)) for cut in combinations(range(1, 7), 2)
        }
        best = min(costs, key=costs.__getitem__)
        wanted = np.empty(7, int)
        wanted[np.argsort(-scores)] = np.repeat([0, 1, 2], np.diff([0, *best, 7]))
        assert tiers(scores, 3).tolist() == wanted.tolist()
    assert tiers(np.array([0.1, 0.9, 0.5]), 10).tolist() == [2, 0, 1]


# check 4
@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.9, 1.0])
def test_the_threshold_spends_its_share(share):
    wants = np.random.default_rng(3).random(97).astype(np.float32)
    alpha = np.float32(preference.threshold(wants, share))
    assert abs((wants >= alpha).mean() - share) <= 1 / 97 + 1e-9


# check 9
def test_one_near_query_weighs_ten_times_the_others():
    weights = np.asarray(nearness(jnp.array([[0.0, 1.0, 0.0], [0.0, 0.2, 0.0]])))
    np.testing.assert_allclose(weights / weights[:, :1], [[1, 10, 1], [1, 10, 1]], rtol=1e-6)
    assert weights[0, 1] == pytest.approx(100)  # 10^(1 + 1): the released code's scale


def test_win_rates_by_similarity_are_those_of_the_released_code():
    rng, n, m = np.random.default_rng(4), 60, 3
    v, grades = rng.normal(size=(n, 5)), rng.integers(0, 2, (n, m)).astype(np.float32)
    asked = rng.normal(size=(4, 5)).astype(np.float32)
    fights = [(0, 1), (0, 2), (1, 2)]
    model = ranking(v.astype(np.float32), grades, fights, most=10)
    found = preference.ranked(model, 0, 1, jnp.asarray(asked))
    row, pairs = np.repeat(np.arange(n), 3), np.tile(np.array(fights), (n, 1))
    a, b = pairs.T
    sign = grades[row, a] - grades[row, b]
    winner = np.where(sign > 0, 0, np.where(sign < 0, 1, 2))
    for q, mine in zip(asked, np.asarray(found), strict=True):
        cosine = v @ q / np.linalg.norm(v, axis=1) / np.linalg.norm(q)
        theirs = released_ratings(a, b, winner, m, 10 * 10 ** (cosine / cosine.max())[row])
        assert mine == pytest.approx(1 - 1 / (1 + 10 ** ((theirs[0] - theirs[1]) / 400)), abs=2e-4)


def test_ties_are_dropped_split_or_say_that_the_weak_one_suffices():
    grades = np.float32([[1, 0], [0, 1], [1, 1], [0, 0]])
    battles = fought(grades, [(0, 1)])
    assert battles.real.tolist() == [True, True, False, False]
    assert battles.winner[:2].tolist() == [0, 1] and battles.loser[:2].tolist() == [1, 0]
    each = won(grades, np.arange(2), [(0, 1)])
    assert each[:, 0, 1].tolist() == [1, 0, 0.5, 0.5] and each[:, 1, 0].tolist() == [0, 1, 0.5, 0.5]
    logits = np.float32([0.3, 1.1, -0.4])
    released = 1 - np.sum((np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum())[-2:])
    assert float(preference.folded(jnp.asarray(logits))) == pytest.approx(released, abs=1e-6)


def test_battles_within_a_tier_are_left_out():
    grades = np.float32([[1, 0, 0]])
    each = won(grades, np.int32([0, 0, 1]), [(0, 1), (0, 2), (1, 2)])
    assert each[0].tolist() == [[0, 1.5], [0.5, 0]]


def test_the_noise_keeps_its_ratio_to_the_query():
    v = np.eye(384, dtype=np.float32)[:7] * 3
    published = 0.1 * math.sqrt(1536)  # its length beside a vector of length 1
    assert spread(0.1, v) * math.sqrt(384) / 3 == pytest.approx(published) == pytest.approx(3.919, abs=1e-3)


def by_hand(model, v, battles, turns, rate, decay):
    """The released training in numpy, float64, without noise: Adam as torch has it, gradients spelled out."""
    model = {name: np.asarray(leaf, np.float64) for name, leaf in model.items()}
    first, second = ({name: np.zeros_like(leaf) for name, leaf in model.items()} for _ in range(2))
    step = 0
    for batch in turns.reshape(-1, turns.shape[-1]):
        batch = batch[batch >= 0]
        if not len(batch):
            continue
        gradient = {name: decay * leaf for name, leaf in model.items()}
        length = np.linalg.norm(model["members"], axis=1, keepdims=True)
        unit = model["members"] / length
        for i in batch:
            w, other, q = battles.winner[i], battles.loser[i], v[battles.row[i]]
            u, apart = model["project"] @ q, unit[w] - unit[other]
            slope = -1 / (1 + np.exp(np.sum(apart * u * model["classify"]))) / len(batch)
            gradient["classify"] += slope * apart * u
            gradient["project"] += slope * np.outer(model["classify"] * apart, q)
            for m, sign in ((w, 1.0), (other, -1.0)):
                g = sign * slope * model["classify"] * u
                gradient["members"][m] += (g - unit[m] * (unit[m] @ g)) / length[m]
        step += 1
        for name, g in gradient.items():
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.999 * second[name] + 0.001 * g * g
            move = first[name] / (1 - 0.9**step) / (np.sqrt(second[name] / (1 - 0.999**step)) + 1e-8)
            model[name] = model[name] - rate * move
    return model


def lesson():
    rng = np.random.default_rng(5)
    v = rng.normal(size=(10, 6)).astype(np.float32)
    battles = fought(rng.integers(0, 2, (10, 3)).astype(np.float32), [(0, 1), (0, 2), (1, 2)])
    return v, battles, epochs(battles.real, 3, 4, seed=0)


def trained(model, v, battles, turns, others, checked, noise=0.0, seed=0):
    settings = {"rate": 0.05, "decay": 0.01, "noise": noise}
    return descend(
        model, jnp.asarray(v), battles, jnp.asarray(turns), jnp.asarray(others), checked, settings, jax.random.key(seed)
    )  # fmt: skip


def test_training_is_the_released_one_and_the_best_epoch_is_kept():
    v, battles, turns = lesson()
    model = fresh("abc", 4, 6, seed=0)
    nobody = battles._replace(real=np.zeros_like(battles.real))
    each = [by_hand(model, v, battles, turns[: n + 1], 0.05, 0.01) for n in range(len(turns))]
    found, said = trained(model, v, battles, turns, v, nobody)  # nothing to check on: the first epoch is kept
    for name, leaf in each[0].items():
        np.testing.assert_allclose(found[name], leaf, atol=2e-4)
    assert said.shape == (3, 2) and float(said[2, 0]) < float(said[0, 0])
    last = np.flatnonzero(
        battles.real & (rate_of(each[0], v, battles) < 0) & (rate_of(each[2], v, battles) > 0)
    )
    check = Battles(
        *(leaf[last[:1]] for leaf in battles)
    )  # one that is wrong after the first epoch, right at the end
    found, said = trained(model, v, battles, turns, v, check)
    best = int(np.argmax(said[:, 1]))
    assert best > 0 and said[:, 1].tolist() == [float(rate_of(one, v, check)[0] > 0) for one in each]
    for name, leaf in each[best].items():
        np.testing.assert_allclose(found[name], leaf, atol=5e-4)


def rate_of(model, v, battles):
    """The winner's lead in each battle, by numpy."""
    unit = model["members"] / np.linalg.norm(model["members"], axis=1, keepdims=True)
    return ((unit[battles.winner] - unit[battles.loser]) * (v[battles.row] @ model["project"].T)) @ model[
        "classify"
    ]


def test_each_epoch_meets_every_battle_once_and_no_tie():
    real = np.array([True, False, True, True, True, False, True])
    found = epochs(real, 4, 2, seed=1)
    assert found.shape == (4, 4, 2)
    for turn in found:
        assert sorted(turn[turn >= 0].tolist()) == [0, 2, 3, 4, 6]
    assert len({tuple(turn.ravel().tolist()) for turn in found}) > 1


def test_noise_is_in_training_alone():
    v, battles, turns = lesson()
    model = fresh("abc", 4, 6, seed=0)
    runs = [
        trained(model, v, battles, turns, v, battles, noise, seed) for noise, seed in ((1.0, 0), (1.0, 1))
    ]
    assert not np.allclose(runs[0][0]["project"], runs[1][0]["project"])
    best, said = runs[0]
    right = rate_of({name: np.asarray(leaf) for name, leaf in best.items()}, v, battles) > 0
    assert np.sum(right & battles.real) / battles.real.sum() == pytest.approx(float(said[:, 1].max()))


# on a small base


@pytest.fixture(scope="module")
def world():
    return worlds.standard("encoder")


def fitted(world, settings, tmp_path, **changes):
    found = METHOD.fit(
        settings,
        world.base,
        world.pool,
        worlds.grants(world, METHOD.needs(settings)),
        Work(tmp_path, **changes),
    )
    return found, METHOD.arrays(settings, world.base, world.pool, found)


QUICK = Config(width=8, epochs=2, steps=2, batch=6, rate=0.05)


def test_every_member_alone_is_what_the_matrix_says(world, tmp_path):
    rows = world.public.train
    found = outcomes(world.base, world.pool, rows, 4, Work(tmp_path))
    batch = jax.tree.map(jnp.asarray, tiny.as_batch(rows))
    lines = {"base": "base", "uniform": "uniform"} | dict.fromkeys(worlds.NAMES, "own_expert")
    assert list(members(world.base, world.pool)) == ["base", *worlds.NAMES, "uniform"]
    for column, (name, number) in enumerate(members(world.base, world.pool).items()):
        given = batch._replace(expert=jnp.full(len(rows), max(number, 0), jnp.int32))
        logp = worlds.scores(worlds.fitted("encoder", lines[name]), given)
        assert found.choice[:, column].tolist() == logp.argmax(axis=1).tolist()
        assert found.right[:, column].tolist() == (logp.argmax(axis=1) == batch.targets).tolist()
        truth = logp[np.arange(len(rows)), batch.targets]
        np.testing.assert_allclose(found.likelihood[:, column], truth, atol=1e-5)
    assert len({tuple(column) for column in found.choice.T}) > 2


def test_the_matrix_is_computed_once_for_each_content(world, tmp_path, monkeypatch):
    import moejax.train.outcomes as module

    calls, run = [], module._alone
    monkeypatch.setattr(module, "_alone", lambda *a, **k: calls.append(1) or run(*a, **k))
    work = Work(tmp_path / "one", common=tmp_path / "common")
    first = outcomes(world.base, world.pool, world.public.train, 9, work)
    assert len(calls) == 5
    again = outcomes(
        world.base, world.pool, world.public.train, 9, Work(tmp_path / "two", common=tmp_path / "common")
    )
    assert len(calls) == 5 and all(np.array_equal(*pair) for pair in zip(first, again, strict=True))
    outcomes(world.base, world.pool, world.public.validation, 9, work)
    fewer = worlds.make("encoder", "ann", "bob").pool
    outcomes(world.base, fewer, world.public.train, 9, work)
    assert len(calls) == 5 + 5 + 4
    rows, whole = world.public.train, world.public.train.whole
    for name, at in (("tokens", (0, 0)), ("targets", 0), ("choices", (0, 0))):
        leaf = getattr(whole, name).copy()
        leaf[at] = (leaf[at] + 1) % tiny.CHOICES
        calls.clear()
        outcomes(world.base, world.pool, replace(rows, whole=whole._replace(**{name: leaf})), 9, work)
        assert len(calls) == 5
    calls.clear()
    padded = np.where(whole.mask, whole.tokens, 7)  # what stands behind a text says nothing
    outcomes(world.base, world.pool, replace(rows, whole=whole._replace(tokens=padded)), 9, work)
    outcomes(world.base, worlds.make("encoder", "ann", "bob", "dan").pool, rows, 9, work)
    assert len(calls) == 5


def test_a_decoders_grades_are_likelihoods(tmp_path):
    world = worlds.standard("decoder")
    found = outcomes(world.base, world.pool, world.public.train, 9, Work(tmp_path))
    assert (found.choice == -1).all() and ((found.right > 0) & (found.right < 1)).all()
    np.testing.assert_allclose(np.log(found.right), found.likelihood, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("strong", ["bob", "uniform"])
@pytest.mark.parametrize("predictor", ["mf", "sw", "bert"])
def test_a_request_is_answered_by_the_member_that_its_win_rate_asks_for(world, tmp_path, predictor, strong):
    settings = replace(QUICK, predictor=predictor, strong=strong, weak="ann")
    found, given = fitted(world, settings, tmp_path)
    adapted, batch = adapt(settings, world.base), worlds.batch(world, 8)
    assert isinstance(adapted.route, Pair)
    wants = np.asarray(jax.jit(adapted.route.wants)(given, batch))
    alpha = np.float32(np.median(wants))
    given["router"]["knobs"]["threshold"] = jnp.asarray(alpha)
    scores = jax.jit(score, static_argnums=0)(adapted, given, batch)[0]
    numbers = members(world.base, world.pool)
    each = [
        score(alone(world.base, numbers[name]), arrays(world.base, world.pool, numbers[name]), batch)[0]
        for name in (strong, "ann")
    ]
    called = wants >= alpha
    assert 0 < called.sum() < 8
    np.testing.assert_allclose(scores, np.where(called[:, None], *each), atol=1e-5)


# check 5
def test_the_threshold_is_a_knob_and_a_sweep_compiles_nothing(world):
    fit, batch = worlds.fitted("encoder", "routellm"), worlds.batch(world, 8)
    route, shares = fit.adapted.route, []

    def weights(alpha):
        router = fit.arrays["router"] | {"knobs": {"threshold": jnp.float32(alpha)}}
        return worlds.look(fit, batch, fit.arrays | {"router": router})[1]

    weights(0.5)
    with worlds.compiles() as programs:
        for alpha in (0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0, 1.0001):
            shares.append(weights(alpha)[tiny.EVERYWHERE][0].sum(-1).mean())
    assert programs == []
    assert shares[0] == 1 and shares[-1] == 0
    assert all(high >= low for high, low in pairwise(shares))
    wants = np.asarray(jax.jit(route.wants)(fit.arrays, batch))
    assert ((wants > 0) & (wants < 1)).all()


def test_a_win_rate_at_the_threshold_is_enough(world):
    fit, batch = worlds.fitted("encoder", "routellm"), worlds.batch(world, 8)
    wants = fit.adapted.route.wants(fit.arrays, batch)
    router = fit.arrays["router"] | {"knobs": {"threshold": wants[3]}}
    weights = fit.adapted.route(fit.arrays | {"router": router}, batch).values[:, 0]
    assert weights[3] == 1 and weights.tolist() == (np.asarray(wants) >= float(wants[3])).tolist()


@pytest.mark.parametrize("sample", ["general", "target"])
def test_the_threshold_is_calibrated_on_the_rows_that_it_says(world, tmp_path, sample):
    settings = replace(QUICK, sample=sample, share=0.3)
    assert METHOD.needs(settings) == {"general"} | ({"target_inputs"} if sample == "target" else set())
    found, given = fitted(world, settings, tmp_path)
    rows = world.public.validation if sample == "general" else world.target.rows.train
    wants = wanted(adapt(settings, world.base).route, given, rows, 64)
    share = np.mean(wants >= float(found.router["knobs"]["threshold"]))
    assert abs(share - 0.3) <= 1 / len(rows)
    words = {"general": "public", "target": "target"}
    assert found.chosen["threshold"] == f"{len(rows)} {words[sample]} rows"


def test_a_cost_is_a_share_by_the_members_prices(world, tmp_path):
    infos = tuple(info | {"price": 3.0} if i == 1 else info for i, info in enumerate(world.pool.infos))
    world = world._replace(pool=replace(world.pool, infos=infos))
    settings = replace(QUICK, strong="bob", cost=1.5)  # the base costs 1, so a quarter may go to bob
    found, given = fitted(world, settings, tmp_path)
    assert found.router["model"]["price"].tolist() == [3.0, 1.0]
    wants = wanted(adapt(settings, world.base).route, given, world.public.validation, 64)
    alpha = preference.threshold(wants, 0.25)
    assert float(found.router["knobs"]["threshold"]) == pytest.approx(alpha)
    with pytest.raises(
        UserError, match="cost is 4, but a request costs 1 by the weak member and 3 by the strong"
    ):
        fitted(world, replace(settings, cost=4.0), tmp_path / "dear")


def test_the_strong_member_is_the_expert_that_is_right_most_often(world):
    right = np.float32([[1, 0, 1, 0, 1], [1, 0, 1, 1, 1]])
    found = Outcomes(np.zeros((2, 5), np.int32), right, np.log(right + 0.1))
    assert pair(Config(), world.base, world.pool, found) == (1, -1)
    assert pair(Config(weak="bob"), world.base, world.pool, found) == (2, 1)
    assert pair(Config(strong="base", weak="cy"), world.base, world.pool, found) == (-1, 2)
    assert pair(Config(strong="uniform"), world.base, world.pool, found) == (-2, -1)
    with pytest.raises(UserError, match="no member 'bop' \\(closest: 'bob'\\)"):
        pair(Config(strong="bop"), world.base, world.pool, found)
    with pytest.raises(UserError, match="strong and weak are both 'cy'"):
        pair(Config(strong="cy", weak="cy"), world.base, world.pool, found)


def test_gold_rows_join_the_battles(world, tmp_path):
    settings = replace(QUICK, predictor="sw", gold=True)
    assert METHOD.needs(settings) == {"general", "target_labels"}
    found, _ = fitted(world, settings, tmp_path)
    rows = len(world.public.train) + len(world.target.rows.train)
    assert found.router["model"]["queries"].shape[0] == rows == found.router["model"]["wins"].shape[0]
    assert found.trained == 0


def test_grades_are_right_answers_or_likelihoods(world, tmp_path):
    """Of two likelihoods one is larger, so nothing ties; right answers tie often."""
    kinds = {}
    for grade in ("right", "likelihood"):
        settings = replace(QUICK, predictor="sw", grade=grade, battles="pair", strong="bob")
        kinds[grade] = set(
            np.unique(fitted(world, settings, tmp_path / grade)[0].router["model"]["wins"]).tolist()
        )
    assert kinds == {"right": {0.0, 0.5, 1.0}, "likelihood": {0.0, 1.0}}


@pytest.mark.slow
def test_a_classifier_learns_the_verdicts_that_it_is_shown(tmp_path):
    """The head and the upper layers are tuned: it tells rows apart that it was trained on, which it did not before."""
    world, steps = worlds.standard("encoder"), 60
    rows = world.public.train
    verdicts = np.arange(len(rows), dtype=np.int32) % 3
    work, start = Work(tmp_path), judge.fresh(world.base, jax.random.key(0))
    given = METHOD.arrays(Config(), world.base, world.pool, worlds.Fitted({"model": start}, world.pool.names))
    bare, batch = Adapted(world.base.model), jax.tree.map(jnp.asarray, tiny.as_batch(rows))
    stream = judge.judgements([rows], verdicts, 9, 0)
    model = work.train(
        "c", bare, given, {"router": {"model": start}}, stream, Optimiser(0.02, steps), losses=judge.judged
    )
    said = [
        np.asarray(judge.classified(bare, given | {"router": {"model": one}}, batch)).argmax(-1)
        for one in (start, model["router"]["model"])
    ]
    assert (said[1] == verdicts).mean() == 1 and (said[0] == verdicts).mean() < 0.8
    moved = jax.tree.map(
        lambda a, b: not np.allclose(a, b), model["router"]["model"]["layers"], start["layers"]
    )
    assert any(jax.tree.leaves(moved))


def test_a_verdict_follows_its_row_through_several_sets():
    one, other = tiny.rows(tiny.base("encoder"), 5, seed=1), tiny.rows(tiny.base("encoder"), 4, seed=2)
    tokens = np.concatenate([tiny.as_batch(some).tokens for some in (one, other)])
    batch = judge.judgements([one, other], np.arange(9, dtype=np.int32), 6, 0)(1)
    assert batch.targets.shape == (6,) and np.array_equal(batch.tokens, tokens[batch.targets])
    assert batch.choices is None and len(set(batch.targets.tolist())) > 3


def test_what_cannot_be(world, tmp_path):
    with pytest.raises(UserError, match="share is 1.5: expected a share of the requests"):
        fitted(world, replace(QUICK, share=1.5), tmp_path)
    with pytest.raises(UserError, match="fall into one of 1 tiers: give more tiers"):
        fitted(world, replace(QUICK, predictor="sw", tiers=1), tmp_path)
    one = world._replace(pool=worlds.make("encoder", "ann").pool)
    with pytest.raises(NotApplicable, match="no second member"):
        fitted(one, replace(QUICK, weak="ann"), tmp_path)
    named = world._replace(pool=replace(world.pool, names=("ann", "base", "cy")))
    with pytest.raises(UserError, match="an expert is called 'base'"):
        fitted(named, QUICK, tmp_path)
    blind = [replace(some, whole=some.whole._replace(query=None)) for some in world.public]
    with pytest.raises(NotApplicable, match="say --embedder minilm"):
        fitted(world._replace(public=Split(*blind)), QUICK, tmp_path)


def test_epochs_are_logged(world, tmp_path):
    logged = []
    fitted(world, QUICK, tmp_path, log=logged.append)
    assert [(line["loop"], line["step"]) for line in logged] == [("epochs", 0), ("epochs", 1)]
    assert all(np.isfinite(line["loss"]) and 0 <= line["accuracy"] <= 1 for line in logged)


def test_a_route_is_a_value():
    assert Choose("mf", False, None) == Choose("mf", False, None) and hash(Choose("sw", True, None))
    assert adapt(Config(), tiny.base("encoder")).places == EXPERTS


# with a second whole model


def two(kind):
    """A world whose base has a wider and deeper model beside it."""
    world = worlds.standard(kind)
    shape = replace(tiny.CONFIGS[kind], width=24, layers=3, hidden=32)
    other = random_base(shape, 5)
    if kind == "encoder":
        drawn = np.random.default_rng(2).normal(size=(8, 24)).astype(np.float32)
        other = replace(other, labels=jnp.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True)))
    return world._replace(base=replace(world.base, beside=other))


def between(world, adapted, given, batch):
    """The arrays with the threshold in the middle, and which rows are for the strong member."""
    wants = np.asarray(jax.jit(adapted.route.wants)(given, batch))
    alpha = np.float32(np.sort(wants)[len(wants) // 2])
    router = given["router"] | {"knobs": {"threshold": jnp.asarray(alpha)}}
    return given | {"router": router}, wants >= alpha


@pytest.mark.slow
def test_the_model_beside_the_base_is_a_member(tmp_path):
    world = two("encoder")
    names = ["base", *worlds.NAMES, "beside", "uniform"]
    assert list(members(world.base, world.pool)) == names
    found = outcomes(world.base, world.pool, world.public.train, 4, Work(tmp_path))
    batch = jax.tree.map(jnp.asarray, tiny.as_batch(world.public.train))
    other = world.base.beside
    logp = score(
        Adapted(other.model), arrays(world.base, world.pool, -3), batch._replace(prefix=None)
    )[0]  # fmt: skip
    assert found.choice[:, names.index("beside")].tolist() == np.argmax(logp, axis=1).tolist()
    without = outcomes(replace(world.base, beside=None), world.pool, world.public.train, 4, Work(tmp_path))
    assert np.array_equal(np.delete(found.choice, names.index("beside"), axis=1), without.choice)
    bare, *_, beside, _ = prices(world.base, world.pool, 8)
    assert bare == 1 and beside == operations(Adapted(other.model), other, world.pool, 8) / operations(
        Adapted(world.base.model), world.base, world.pool, 8
    )


@pytest.mark.slow
@pytest.mark.parametrize(("strong", "weak"), [("beside", "ann"), ("bob", "beside")])
def test_each_request_is_answered_by_one_of_two_models(tmp_path, strong, weak):
    world = two("encoder")
    settings = replace(QUICK, strong=strong, weak=weak)
    _, given = fitted(world, settings, tmp_path)
    adapted, batch, numbers = (
        adapt(settings, world.base),
        worlds.batch(world, 8),
        members(world.base, world.pool),
    )
    given, called = between(world, adapted, given, batch)
    assert 0 < called.sum() < 8
    run = jax.jit(score, static_argnums=0)
    each = [
        run(alone(world.base, numbers[name]), arrays(world.base, world.pool, numbers[name]),
            batch._replace(prefix=None) if name == "beside" else batch)[0]
        for name in (strong, weak)
    ]  # fmt: skip
    np.testing.assert_allclose(run(adapted, given, batch)[0], np.where(called[:, None], *each), atol=1e-5)
    recorded = jax.jit(partial(score, record=True), static_argnums=0)(adapted, given, batch)
    np.testing.assert_allclose(recorded[0], np.where(called[:, None], *each), atol=1e-5)
    for alpha, only in ((0.0, each[0]), (1.1, each[1])):
        router = given["router"] | {"knobs": {"threshold": jnp.float32(alpha)}}
        np.testing.assert_allclose(run(adapted, given | {"router": router}, batch)[0], only, atol=1e-5)


@pytest.mark.slow
def test_a_model_that_answers_no_request_is_not_run(tmp_path):
    world = two("encoder")
    settings = replace(QUICK, strong="beside")
    _, given = fitted(world, settings, tmp_path)
    broken = jax.tree.map(lambda leaf: leaf * jnp.nan, given["beside"])
    adapted, batch = adapt(settings, world.base), worlds.batch(world, 8)
    router = given["router"] | {"knobs": {"threshold": jnp.float32(1.1)}}
    text = str(jax.make_jaxpr(partial(score, adapted))(given, batch))
    assert text.count("cond[") >= 2
    assert np.isfinite(score(adapted, given | {"router": router, "beside": broken}, batch)[0]).all()


@pytest.mark.slow
def test_two_models_decode_with_two_caches(tmp_path):
    world = two("decoder")
    settings = replace(QUICK, strong="beside", weak="ann")
    _, given = fitted(world, settings, tmp_path)
    adapted, numbers = adapt(settings, world.base), members(world.base, world.pool)
    tokens = np.random.default_rng(3).integers(1, tiny.VOCAB, (6, 5))
    seen = np.ones((6, 5), bool)
    query = np.random.default_rng(4).normal(size=(6, 6)).astype(np.float32)
    batch = jax.tree.map(jnp.asarray, Batch(tokens.astype(np.int32), seen, seen, query=query))
    given, called = between(world, adapted, given, batch)
    assert 0 < called.sum() < 6

    @partial(jax.jit, static_argnums=0)
    def written(adapted, given, batch):
        return generate(
            partial(start, adapted, room=4), partial(step, adapted), given, batch, max_new=4
        ).tokens

    each = [
        written(alone(world.base, numbers[name]), arrays(world.base, world.pool, numbers[name]), batch)
        for name in ("beside", "ann")
    ]
    assert np.array_equal(written(adapted, given, batch), np.where(called[:, None], *each))
    assert not np.array_equal(*each)
