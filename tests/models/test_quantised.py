"""A base whose kernels are integers: near the exact one, frozen, trained over; refused where numbers are changed."""

from dataclasses import replace
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import tiny_folder

import moejax.models.quantised as quantised
from moejax.adapted import Adapted, run
from moejax.config import BaseConfig, Config
from moejax.experts.bank import stack
from moejax.models import weights
from moejax.stages.bases import load_base
from moejax.train.experts import Recipe, train_together
from moejax.train.fulls import FullRecipe, train_fulls
from moejax.train.optimiser import Optimiser
from moejax.train.work import Work
from moejax.types import UserError


def hidden(base) -> np.ndarray:
    """States after the last layer of a few texts."""
    rng = np.random.default_rng(0)
    mask = np.ones((4, 8), bool)
    batch = tiny.as_batch(tiny.rows(tiny.base("encoder"), 4))
    batch = batch._replace(
        tokens=rng.integers(1, 20, (4, 8)), mask=mask, prompt=mask, choices=None, targets=None, pool=mask
    )
    arrays = {"params": base.params, "bank": stack([], base.shapes, base.layers), "router": {}}
    ran = jax.jit(lambda arrays, batch: run(Adapted(base.model), arrays, batch).hidden)(arrays, batch)
    return np.asarray(ran, np.float32)


def kernels(base) -> list:
    """The kernels of the layers."""
    found = jax.tree.leaves_with_path(base.params["layers"], is_leaf=quantised.is_quantised)
    return [leaf for path, leaf in found if path[-1].key == "kernel"]


def test_without_qwix_it_is_said_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(quantised, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="base.quantise is int8, which needs qwix: pip install qwix"):
        weights.load(tiny_folder.encoder(tmp_path), bits="int8")


@pytest.mark.skipif(find_spec("qwix") is None, reason="qwix is not installed")
class TestWithQwix:
    @pytest.mark.parametrize("make", [tiny_folder.encoder, tiny_folder.decoder])
    @pytest.mark.parametrize(
        ("bits", "dtype"), [("int8", "float32"), ("int8", "bfloat16"), ("int4", "float32")]
    )
    def test_it_is_the_base_of_rounded_kernels(self, make, bits, dtype, tmp_path):
        folder, rounding = make(tmp_path), 2**-7 if dtype == "bfloat16" else 1e-6
        exact, some = weights.load(folder), weights.load(folder, dtype=dtype, bits=bits)
        assert all(one.qvalue.dtype == jnp.dtype(bits) for one in kernels(some)) and len(kernels(some)) >= 6
        for one, whole in zip(kernels(some), kernels(exact), strict=True):
            assert one.shape == whole.shape and one.scale.shape == (whole.shape[0], 1, whole.shape[2])
            step = np.abs(whole).max(1, keepdims=True) / (2 ** (jnp.iinfo(bits).bits - 1) - 1)
            far = np.abs(np.asarray(quantised.plain(one), np.float32) - whole)
            assert (far <= step / 2 + rounding * (np.abs(whole) + step)).all() and far.max() > step.max() / 4
        assert (some.fingerprint, some.shapes, some.sites) == (exact.fingerprint, exact.shapes, exact.sites)
        rounded = jax.tree.map(quantised.plain, some.params, is_leaf=quantised.is_quantised)
        found, wanted = hidden(some), hidden(replace(some, params=rounded))
        assert np.linalg.norm(found - wanted) <= 10 * rounding * np.linalg.norm(wanted)
        assert np.abs(found - hidden(exact)).max() > 1e-3
        name = next(iter(exact.homes.whole.leaves))
        np.testing.assert_array_equal(some.homes.whole.tensor(name), exact.homes.whole.tensor(name))

    def test_experts_are_trained_over_it_and_it_stays(self, tmp_path):
        settings = BaseConfig(str(tiny_folder.encoder(tmp_path / "base")), quantise="int8", remat="dots")
        base = load_base(Config(base=settings), settings.source)
        base = replace(base, labels=tiny.base("encoder").labels)
        before = jax.tree.map(np.array, base.params)
        recipe = Recipe(rank=2, batch=4, optimiser=Optimiser(1e-2, 4, accumulate=2))
        lines: list = []
        rows = tiny.rows(tiny.base("encoder"), 8)
        few = replace(rows, whole=rows.whole._replace(tokens=rows.whole.tokens % 20))
        made = train_together(base, {"ann": few}, recipe, Work(tmp_path / "work", log=lines.append))
        assert len(lines) == 4 and lines[-1]["loss"] < lines[0]["loss"]
        assert all(np.abs(one.b).max() > 1e-3 for one in made["ann"].loras.values())
        jax.tree.map(np.testing.assert_array_equal, base.params, before)

    def test_it_is_frozen(self, tmp_path):
        base = weights.load(tiny_folder.encoder(tmp_path / "base"), bits="int8")
        with pytest.raises(
            UserError, match="kernel/qvalue is int8 and cannot be trained: leave out base.quantise"
        ):
            train_fulls(
                base, {"ann": tiny.rows(tiny.base("encoder"), 8)}, FullRecipe(batch=4), Work(tmp_path)
            )
