"""Routing statistics against the weights themselves: units, layers, masks, padding, ties, names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import world as worlds

from moejax.adapted import prefix
from moejax.evaluate.routing import look, named, summary, tokens
from moejax.experts import bank as banks
from moejax.models.block import slice_layers

PATHS = {tiny.EVERYWHERE: [0, 1], tiny.ON_TOP: [1]}


def seen(line, batch):
    fit = worlds.fitted("encoder", line)
    return look(fit.arrays, batch, adapted=fit.adapted), worlds.look(fit, batch)[1]


def batch(count=4, seed=5):
    return worlds.batch(worlds.standard("encoder"), count, seed)._replace(weight=jnp.ones(count))


def plain(found, some, line="arrow"):
    fit = worlds.fitted("encoder", line)
    names = named(fit.arrays["bank"], fit.router.names)
    return summary({"new": found}, {"new": some}, names, 2)


def entropy(w):
    p = w / w.sum(-1, keepdims=True)
    return -np.sum(p * np.log(np.where(p > 0, p, 1)), axis=-1)


@pytest.mark.slow
def test_a_seq2seq_has_tokens_on_both_sides():
    """A text's tokens are counted below, those that the decoder is fed above."""
    fit = worlds.fitted("seq2seq", "arrow")
    some = worlds.batch(worlds.standard("seq2seq"))._replace(weight=jnp.array([1.0, 1, 1, 0]))
    found, weights = look(fit.arrays, some, adapted=fit.adapted), worlds.look(fit, some)[1]
    texts, fed = (
        np.asarray(some.mask),
        np.asarray(some.answer),
    )  # the start token stands where the first answer's does
    for path, sums in found.sites.items():
        real = (fed if path.startswith("layers/") else texts) * np.array([[1], [1], [1], [0]])
        np.testing.assert_allclose(
            sums.weight, np.einsum("bt,lbte->le", real, weights[path]), rtol=1e-4, atol=1e-4
        )
        assert sums.positions == real.sum()
    below = [np.asarray(w) for path, w in weights.items() if not path.startswith("layers/")]
    assert found.each.shape == below[0].shape[1:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "unit"), [("phatgoose", "token"), ("mole(matrix)", "request"), ("uniform", "task")]
)
def test_means_loads_and_entropies_are_those_of_the_weights(line, unit):
    some = batch()
    found, weights = seen(line, some)
    record = plain(found, some, line)
    names = worlds.fitted("encoder", line).router.names
    assert record["unit"] == unit and record["experts"] == list(names) and record["rows"] == 4
    assert {path: site["layers"] for path, site in record["sites"].items()} == PATHS
    mask = np.asarray(some.mask)
    for path, site in record["sites"].items():
        for at, layer in enumerate(site["layers"]):
            w = weights[path][layer][..., : len(names)]
            w = w[mask] if unit == "token" else w.reshape(-1, len(names))
            assert np.allclose(site["weight"][at], w.mean(0), atol=1e-4)
            assert np.allclose(site["entropy"][at], entropy(w).mean(), atol=1e-4)
            assert sum(site["load"][at]) == pytest.approx(1, abs=1e-4)
            if unit != "task":
                top = np.bincount(w.argmax(-1), minlength=len(names)) / len(w)
                assert np.allclose(site["load"][at], top, atol=1e-4)


def test_ties_are_shared_evenly():
    some = batch()
    record = plain(seen("uniform", some)[0], some, "uniform")
    assert record["sites"][tiny.EVERYWHERE]["load"][0] == pytest.approx([1 / 3] * 3, abs=1e-4)


def test_the_mean_over_sites_and_layers_leaves_absent_layers_out():
    some = batch()
    found, weights = seen("arrow", some)
    each = (weights[tiny.EVERYWHERE].sum(0) + weights[tiny.ON_TOP][1]) / 3
    assert np.allclose(found.each, each, atol=1e-5)
    record = plain(found, some)
    assert np.allclose(record["tasks"]["new"], each[np.asarray(some.mask)].mean(0)[:3], atol=1e-4)


def test_rows_that_fill_the_batch_do_not_count():
    some = batch(3)
    filled = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf[:1]]), some)
    filled = filled._replace(weight=jnp.array([1.0, 1.0, 1.0, 0.0]))
    assert plain(seen("phatgoose", some)[0], some) == plain(seen("phatgoose", filled)[0], filled)
    one, other = (plain(seen("mole(matrix)", b)[0], b)["sites"] for b in (some, filled))
    assert one == other


def test_padding_does_not_count():
    some = batch()
    other = some._replace(tokens=jnp.where(some.mask, some.tokens, 1))
    assert not np.array_equal(some.tokens, other.tokens)
    assert plain(seen("token_gate", some)[0], some) == plain(seen("token_gate", other)[0], other)


@pytest.mark.slow
def test_a_block_that_mixes_is_a_site_in_the_layers_whose_linears_are_adapted():
    some = batch()
    record = plain(seen("mole", some)[0], some)
    assert {path: site["layers"] for path, site in record["sites"].items()} == {"layers": [0, 1]}
    record = plain(seen("mole(layer)", some)[0], some)
    assert {path: site["layers"] for path, site in record["sites"].items()} == {
        "layers/attn": [0, 1],
        "layers/mlp": [1],
    }


def test_layers_keep_their_numbers_where_only_the_upper_ones_run():
    fit, some = worlds.fitted("encoder", "arrow"), batch()
    params, model = fit.arrays["params"], fit.adapted.model
    above = some._replace(prefix=prefix(model, params, some, 1))
    arrays = fit.arrays | {"params": slice_layers(params, 1, 2)}
    upper = plain(look(arrays, above, adapted=fit.adapted), some)["sites"]
    weights = worlds.look(fit, above, arrays)[1]
    assert {path: site["layers"] for path, site in upper.items()} == {path: [1] for path in PATHS}
    for path, site in upper.items():
        assert len(weights[path]) == 1
        w = weights[path][0][np.asarray(some.mask)][..., :3]
        assert np.allclose(site["weight"][0], w.mean(0), atol=1e-4)


def test_tasks_are_added_and_kept_apart():
    first, second = batch(4, 5), batch(4, 6)
    parts = [seen("phatgoose", some)[0] for some in (first, second)]
    experts = named(worlds.fitted("encoder", "phatgoose").arrays["bank"], ("ann", "bob", "cy"))
    both = summary({"a": parts[0], "b": parts[1]}, {"a": first, "b": second}, experts, 2)
    counts = [int(np.sum(some.mask)) for some in (first, second)]
    site = [
        plain(part, some)["sites"][tiny.EVERYWHERE] for part, some in zip(parts, (first, second), strict=True)
    ]
    for name in ("weight", "load", "entropy"):
        mean = np.average([site[0][name], site[1][name]], axis=0, weights=counts)
        assert np.allclose(both["sites"][tiny.EVERYWHERE][name], mean, atol=1e-4)
    assert both["rows"] == 8 and both["tasks"]["a"] == plain(parts[0], first)["tasks"]["new"]


def test_the_bare_base_has_no_sites():
    found, _ = seen("base", batch())
    assert found.sites == {} and not np.any(found.each)


def test_looking_again_compiles_nothing():
    seen("arrow", batch())
    with worlds.compiles() as compiled:
        fit = worlds.fitted("encoder", "arrow")
        look(fit.arrays, batch(4, 7), adapted=fit.adapted)
    assert compiled == []


def test_names_are_those_of_living_slots_and_numbers_in_a_bank_that_a_fit_made():
    bank = worlds.standard("encoder").pool.bank
    assert named(bank, ("ann", "bob", "cy")) == {0: "ann", 1: "bob", 2: "cy"}
    without = bank._replace(alive=bank.alive.at[1].set(False))
    assert named(without, ("ann", "bob", "cy")) == {0: "ann", 2: "cy"}
    single = banks.take(bank, [0])
    assert named(single, ("ann", "bob", "cy")) == {0: "expert 1"}


def test_tokens_have_their_top_expert():
    found = tokens(np.array([[0.2, 0.8], [0.0, 0.0], [0.5, 0.5]]), ["a", "b", "c"])
    assert found == {"tokens": ["a", "b", "c"], "expert": [1, None, 0], "weight": [0.8, 0.0, 0.5]}
