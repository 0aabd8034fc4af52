"""PHATGOOSE on one linear: the checks and worked numbers of its card, in use and in the gate phase."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from one_linear import PATH, NoGrants, base_of, lora, pool, random_loras, run, sizes

from moejax.adapted import Adapted
from moejax.adapted import run as forward
from moejax.contract import Fitted, plain_arrays
from moejax.experts import lora as loras_
from moejax.methods.phatgoose import METHOD, Config, OwnGate, adapt, fit
from moejax.places import LINEARS, own_expert
from moejax.site import sown
from moejax.train.rows import ArrayRows
from moejax.types import Batch, NotApplicable

X = np.random.default_rng(3).normal(size=(5, 4)).astype(np.float32)
GATES = np.random.default_rng(4).normal(size=(4, 4)).astype(np.float32)
HAND_X, HAND_GATES = (1, 2, 3, 6), [(0, 0, 0, 1), (1, 0, 0, 0), (0, 0, 1, 1)]
HAND = [lora(np.eye(4)[i : i + 1], [[10.0**i]]) for i in range(3)]


def phatgoose(loras, gates, x, k=2):
    """y, delta and weights."""
    d, f = sizes(loras)
    base, some = base_of(d, f), pool(loras, d, f, ("gate", gates))
    fitted = fit(Config(k=k), base, some, NoGrants(), None)
    return run(adapt(Config(k=k), base), METHOD.arrays(Config(k=k), base, some, fitted), x)


def test_hand_example():
    _, added, w = phatgoose(HAND, HAND_GATES, HAND_X)
    np.testing.assert_allclose(w, (0.561697, 0, 0.438302), rtol=0, atol=1e-6)
    np.testing.assert_allclose(added, [132.052242], rtol=0, atol=2e-4)
    _, _, first = phatgoose(HAND, HAND_GATES, HAND_X, k=1)
    assert int(np.argmax(first)) == 0  # raw products (6, 1, 9) would choose the third
    probabilities = phatgoose(HAND, HAND_GATES, HAND_X, k=3)[2]
    np.testing.assert_allclose(probabilities, (0.547644, 0.025019, 0.427336), rtol=0, atol=2e-6)


def test_one_expert_is_the_plain_lora_short_of_a_millionth():
    one = random_loras(1)
    _, added, w = phatgoose(one, GATES[:1], X)
    np.testing.assert_allclose(w, np.full((5, 1), 1 / (1 + 1e-6)), rtol=0, atol=1e-7)
    assert np.all(np.asarray(w) < 1)
    np.testing.assert_allclose(added, X @ loras_.delta(one[0]) * (1 - 1e-6), rtol=0, atol=2e-6)


def test_shift_and_positive_scale_of_input_or_gate_leave_weights_unchanged():
    some = random_loras(4)
    _, _, w = phatgoose(some, GATES, X)
    for gates, x in ((GATES, X + 1.5), (GATES - 2, X), (GATES, 4 * X), (3 * GATES, X)):
        np.testing.assert_allclose(phatgoose(some, gates, x)[2], w, rtol=0, atol=1e-4)


def test_the_sign_of_a_gate_matters():
    some = random_loras(4)
    _, _, one = phatgoose(some, GATES, X, k=4)
    _, _, other = phatgoose(some, -GATES, X, k=4)
    np.testing.assert_array_equal(np.argmax(one, -1), np.argmin(other, -1))
    assert np.abs(one - other).max() > 0.1


def test_equal_gates_share_between_the_lowest_two():
    _, _, w = phatgoose(random_loras(4), np.tile(GATES[0], (4, 1)), X)
    np.testing.assert_allclose(w, np.tile([0.5, 0.5, 0, 0], (5, 1)), rtol=0, atol=2e-6)


def test_an_untrained_gate_scores_zero_and_so_ties_with_an_average_expert():
    flat = np.full(4, 0.7)  # standardised to zero as well
    _, _, w = phatgoose(random_loras(3), [np.zeros(4), flat, GATES[0]], X, k=3)
    np.testing.assert_allclose(w[:, 0], w[:, 1], rtol=0, atol=1e-6)
    _, _, raw = phatgoose(random_loras(3), [np.zeros(4), flat, -GATES[0]], X, k=3)
    assert np.all((w[:, 0] > w[:, 2]) != (raw[:, 0] > raw[:, 2]))


def test_permuted_experts_permute_weights_and_give_the_same_output():
    some, order = random_loras(4), [2, 0, 3, 1]
    _, added, w = phatgoose(some, GATES, X)
    _, again, turned = phatgoose([some[i] for i in order], GATES[order], X)
    np.testing.assert_allclose(turned, w[:, order], rtol=0, atol=1e-6)
    np.testing.assert_allclose(again, added, rtol=0, atol=1e-5)


def test_the_best_expert_given_twice_wins_both_places_with_half_each():
    some = random_loras(3)
    _, _, w = phatgoose(some, GATES[:3], X, k=1)
    for row, best in enumerate(np.argmax(w, -1)[:3]):
        twice = [*some, some[best]]
        _, added, w_twice = phatgoose(twice, np.concatenate([GATES[:3], GATES[best : best + 1]]), X[row])
        np.testing.assert_allclose(np.asarray(w_twice)[[best, 3]], 0.5, rtol=0, atol=2e-6)
        np.testing.assert_allclose(added, X[row] @ loras_.delta(some[best]), rtol=0, atol=1e-5)


def test_an_expert_that_does_not_adapt_the_linear_is_left_out():
    some = random_loras(2)
    _, alone, w_alone = phatgoose(some, GATES[:2], X)
    _, added, w = phatgoose([some[0], None, some[1]], [GATES[0], GATES[3], GATES[1]], X)
    np.testing.assert_allclose(w, np.insert(np.asarray(w_alone), 1, 0, axis=1), rtol=0, atol=1e-7)
    np.testing.assert_allclose(added, alone, rtol=0, atol=1e-6)


def gate_phase(loras, gates, x, expert):
    """y and delta of the contributor's phase, each row with its own expert."""
    d, f = sizes(loras)
    base, some = base_of(d, f), pool(loras, d, f)
    leaves = {PATH: {"gate": jnp.asarray(gates, jnp.float32)[None]}}
    arrays = plain_arrays(Config(), base, some, Fitted({"places": leaves, "knobs": {}}, some.names))
    adapted = Adapted(base.model, (("layers/*/*", OwnGate()),), own_expert)
    return run(adapted, arrays, x, jnp.asarray(expert))[:2]


def test_in_the_gate_phase_a_gate_of_zero_halves_the_rows_own_lora():
    some, own = random_loras(3), [0, 2, 1, 2, 0]
    _, added = gate_phase(some, np.zeros((3, 4)), X, own)
    expected = np.stack([x @ loras_.delta(some[e]) / 2 for x, e in zip(X, own, strict=True)])
    np.testing.assert_allclose(added, expected, rtol=0, atol=2e-6)


def test_in_the_gate_phase_the_sigmoid_of_the_raw_input_scales_the_lora():
    _, added = gate_phase(HAND, [(0, 0, 0, 0.5), (0, 0, 0, 0), (0, 0, 0, 0)], np.array([HAND_X]), [0])
    np.testing.assert_allclose(added, [[0.952574]], rtol=0, atol=2e-6)  # sigmoid(3) times A_1 x = 1
    some, own = random_loras(3), [0, 2, 1, 2, 0]
    _, added = gate_phase(some, GATES[:3], X, own)
    gate = [1 / (1 + np.exp(-float(x @ GATES[e]))) for x, e in zip(X, own, strict=True)]
    expected = np.stack([g * x @ loras_.delta(some[e]) for g, x, e in zip(gate, X, own, strict=True)])
    np.testing.assert_allclose(added, expected, rtol=0, atol=5e-6)


def test_in_the_gate_phase_each_gate_learns_from_its_own_rows_alone():
    some = random_loras(3)

    def loss(gates):
        return jnp.sum(gate_phase(some, gates, X[:2], [2, 2])[0] ** 2)

    slope = jax.grad(loss)(jnp.zeros((3, 4)))
    np.testing.assert_array_equal(slope[:2], np.zeros((2, 4)))
    assert np.abs(slope[2]).min() > 0


class Trainer:
    """Stands in for the training loop: remembers what it was asked to train."""

    seed = 0

    def train(self, name, adapted, arrays, free, stream, optimiser, **options):
        self.free, self.adapted, self.arrays, self.optimiser = free, adapted, arrays, optimiser
        return jax.tree.map(lambda leaf: leaf + 1, free)


def test_contributors_train_their_gates_from_zero_and_nothing_else():
    d, f = 4, 3
    base, some, trainer = base_of(d, f), pool(random_loras(3), d, f), Trainer()
    rows = dict.fromkeys(some.names, ArrayRows(Batch(*np.zeros((3, 5, 2))), np.arange(5)))
    extras = METHOD.contribute(Config(steps=7, rate=0.1), base, some, rows, trainer)
    assert jax.tree.map(jnp.shape, trainer.free) == {"router": {"places": {PATH: {"gate": (1, 3, 4)}}}}
    np.testing.assert_array_equal(trainer.free["router"]["places"][PATH]["gate"], np.zeros((1, 3, 4)))
    assert (
        trainer.adapted.route is own_expert and trainer.optimiser.steps == 7 and trainer.optimiser.rate == 0.1
    )
    assert set(extras) == {"e0", "e1", "e2"}
    for values in extras.values():
        np.testing.assert_array_equal(values["gate"][PATH], np.ones((1, 4)))


def test_use_needs_the_gate_and_no_data():
    assert METHOD.card.extras == frozenset({"gate"})
    assert METHOD.needs(Config()) <= {"own"}
    without = pool(random_loras(2), 4, 3).allow("gate")
    with pytest.raises(NotApplicable, match="e0 has no gate"):
        fit(Config(), base_of(4, 3), without, NoGrants(), None)


@dataclass(frozen=True)
class Watched:
    """The gate phase, and what enters each linear."""

    place: OwnGate = OwnGate()

    def __call__(self, site, next, x):
        site.sow("input", x)
        return self.place(site, next, x)


def entering(gates):
    """What enters each adapted linear in the gate phase, by path and layer, for these gates: (path, slot) -> v."""
    base = tiny.base("encoder")
    bank = tiny.pool(base, "ann", "bob").bank
    places = {
        path: {"gate": np.zeros(s.a.shape[:2] + s.a.shape[3:], np.float32)} for path, s in bank.sites.items()
    }
    for (path, slot), v in gates.items():
        places[path]["gate"][slot] = v
    arrays = {
        "params": base.params,
        "bank": bank,
        "router": {"places": places, "knobs": {}},
        "labels": base.labels,
    }
    batch = tiny.as_batch(tiny.rows(base, 4))._replace(expert=np.array([0, 1, 0, 1], np.int32))
    adapted = Adapted(base.model, ((LINEARS, Watched()),), route=own_expert)
    records = jax.jit(lambda arrays, batch: forward(adapted, arrays, batch, record=True).records)(
        arrays, batch
    )
    seen = {path: np.asarray(found) for path, found in sown(records, "input").items()}
    return {(path, layer): seen[path][layer] for path, layer in SITES}


SITES = (tiny.EVERYWHERE, 0), (tiny.EVERYWHERE, 1), (tiny.ON_TOP, 1)  # from below


@pytest.mark.parametrize(
    ("gate", "moved"), [((tiny.EVERYWHERE, 0), 2), ((tiny.EVERYWHERE, 1), 1), ((tiny.ON_TOP, 0), 0)]
)
def test_a_gate_moves_what_enters_the_linears_above_it_and_none_below(gate, moved):
    """So inputs that were recorded once are exact for the lowest linears alone."""
    before, after = entering({}), entering({gate: 1.0})
    still = len(SITES) - moved
    for site in SITES[:still]:
        np.testing.assert_array_equal(after[site], before[site])
    for site in SITES[still:]:
        assert np.abs(after[site] - before[site]).max() > 1e-3
