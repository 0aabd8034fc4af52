"""Activations below the lowest place: exact, computed once, whole on disk."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import world as worlds

from moejax.models import like_length
from moejax.models.block import slice_layers
from moejax.models.weights import random_base
from moejax.train import features


@cache
def three(kind):
    """A base of three layers: two below, one above."""
    return replace(random_base(replace(tiny.CONFIGS[kind], layers=3)), labels=tiny.base(kind).labels)


def upper(kind, tmp_path, lowest=1):
    """The upper layers of a base, and rows with what enters them."""
    base, rows = tiny.base(kind), tiny.rows(tiny.base(kind), 4, seed=5)
    path = tmp_path / "features.npy"
    found = features.features(base.model, base.params, rows.whole, lowest, path, batch=3)
    top = replace(base, params=slice_layers(base.params, lowest, base.layers))
    return top, rows.whole._replace(prefix=found)


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_layers_from_the_cache_up_give_the_scores_of_all_layers(kind, tmp_path):
    world = worlds.standard(kind)
    top, batch = upper(kind, tmp_path)
    bank = world.pool.bank  # only what is adapted in the upper layer may differ from the base
    sites = {tiny.ON_TOP: bank.sites[tiny.ON_TOP]}
    fit = worlds.fitted(kind, "uniform")
    arrays = fit.arrays | {"bank": bank._replace(sites=sites)}
    whole = worlds.scores(fit, jax.tree.map(jnp.asarray, batch._replace(prefix=None)), arrays)
    cut = worlds.scores(fit, jax.tree.map(jnp.asarray, batch), arrays | {"params": top.params})
    real = np.asarray(batch.mask) if kind == "decoder" else ...
    np.testing.assert_allclose(cut[real], whole[real], rtol=0, atol=1e-5)


def test_activations_do_not_depend_on_the_size_of_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(like_length, "WIDTHS", 4)  # rows of several widths
    base, rows = three("encoder"), tiny.rows(tiny.base("encoder"), 7, seed=5, length=12)
    found = [
        features.features(base.model, base.params, rows.whole, 2, tmp_path / f"{size}.npy", batch=size)
        for size in (2, 7)
    ]
    assert found[0].shape == (7, 12, 16)
    real = rows.whole.mask
    assert real[:, 8:].any() and not real[:, 8:].all()  # some rows are wider than others
    np.testing.assert_allclose(
        found[0][real], found[1][real], rtol=0, atol=1e-5
    )  # float32 sums in another order


def test_what_is_there_is_read_and_mapped(tmp_path, monkeypatch):
    top, batch = upper("encoder", tmp_path)

    def never(*args, **kwargs):
        raise AssertionError("computed again")

    monkeypatch.setattr(features, "_below", never)
    _, again = upper("encoder", tmp_path)
    assert isinstance(again.prefix, np.memmap) and np.array_equal(again.prefix, batch.prefix)


def test_a_killed_computation_leaves_no_file_that_would_be_read(tmp_path, monkeypatch):
    below, calls = features._below, []

    def killed(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return below(*args, **kwargs)

    monkeypatch.setattr(features, "_below", killed)
    with pytest.raises(KeyboardInterrupt):
        upper("encoder", tmp_path)
    assert not (tmp_path / "features.npy").exists()
    _, batch = upper("encoder", tmp_path)
    assert np.asarray(batch.prefix).any(axis=-1)[batch.mask].all()


def test_bfloat16_comes_back_as_bfloat16(tmp_path):
    config = replace(tiny.CONFIGS["encoder"], dtype="bfloat16")
    base, rows = random_base(config), tiny.rows(tiny.base("encoder"), 3)
    path = tmp_path / "features.npy"
    found = features.features(base.model, base.params, rows.whole, 1, path)
    assert found.dtype == jnp.bfloat16 and path.stat().st_size < 2 * 3 * 12 * 16 + 200
    assert np.isfinite(found.astype(np.float32)).all() and np.asarray(found).any()


def test_the_size_that_is_said_is_the_size_on_disk(tmp_path):
    _, batch = upper("encoder", tmp_path)
    said = features.size(batch, 16)
    assert said == 4 * 12 * 16 * 4 and 0 <= (tmp_path / "features.npy").stat().st_size - said < 200


def test_the_key_tells_rows_base_and_layer_apart():
    base, rows = tiny.base("encoder"), tiny.rows(tiny.base("encoder"), 4, seed=5)
    other = tiny.rows(base, 4, seed=6)
    one = features.key(rows.whole, base.fingerprint, "float32", 1)
    assert one == features.key(tiny.rows(base, 4, seed=5).whole, base.fingerprint, "float32", 1)
    others = [
        features.key(other.whole, base.fingerprint, "float32", 1),
        features.key(rows.whole, "of another base", "float32", 1),
        features.key(rows.whole, base.fingerprint, "bfloat16", 1),
        features.key(rows.whole, base.fingerprint, "float32", 2),
        features.key(rows.whole._replace(mask=~rows.whole.mask), base.fingerprint, "float32", 1),
    ]
    assert len({one, *others}) == 6 and len(one) == 16
