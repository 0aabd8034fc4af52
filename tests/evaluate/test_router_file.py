"""Routers on disk: whole or refused, tied to experts, base and settings by name."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import world as worlds

from moejax.contract import Fitted
from moejax.evaluate import router_file
from moejax.experts.content_hash import content_hash
from moejax.methods import load
from moejax.types import NotApplicable, UserError

BASE = tiny.base("encoder")
GATE = load("token_gate")


@pytest.fixture
def pool():
    return tiny.pool(BASE, "ann", "bob", capacity=3)


def router(pool, **fields):
    """A closed router with something in every part."""
    places = {tiny.EVERYWHERE: {"gate": jnp.arange(2 * 3 * 16, dtype=jnp.float32).reshape(2, 3, 16)}}
    return Fitted({"places": places, "knobs": {"temperature": jnp.float32(0.5)}}, pool.names, **fields)


@pytest.fixture
def folder(tmp_path, pool):
    router_file.save(tmp_path, GATE, GATE.Config(), BASE, pool, router(pool))
    return tmp_path


def back(folder, pool, method=GATE, config=None, base=BASE):
    return router_file.load(folder, method, config or method.Config(), base, pool)


def test_a_router_comes_back_whole(tmp_path, pool):
    patch = {"layers/attn/q/kernel": jnp.ones((2, 3)), "embed/embedding": jnp.zeros(4, jnp.bfloat16)}
    mine = router(pool, bank=tiny.pool(BASE, "cy").bank, patch=patch)
    router_file.save(tmp_path, GATE, GATE.Config(), BASE, pool, mine)
    found, same = back(tmp_path, pool)
    assert same is pool and found.names == pool.names
    gate = found.router["places"][tiny.EVERYWHERE]["gate"]
    assert np.array_equal(gate, mine.router["places"][tiny.EVERYWHERE]["gate"])
    assert float(found.router["knobs"]["temperature"]) == 0.5
    assert found.bank.sites.keys() == mine.bank.sites.keys()
    for path, stack in mine.bank.sites.items():
        assert stack.bias is None and found.bank.sites[path].bias is None
        for one, two in zip(jax.tree.leaves(stack), jax.tree.leaves(found.bank.sites[path]), strict=True):
            assert one.dtype == two.dtype and np.array_equal(one, two)
    assert found.patch.keys() == patch.keys() and found.patch["embed/embedding"].dtype == jnp.bfloat16
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["router.json", "router.safetensors"]


def test_the_record_says_what_the_router_is_tied_to(folder, pool):
    record = json.loads((folder / "router.json").read_text())
    hashes = {name: content_hash(tiny.expert(BASE, name, rank, alpha).loras)
              for name, rank, alpha in (("ann", 2, 4.0), ("bob", 1, 2.0))}  # fmt: skip
    assert record["experts"] == hashes and record["base"] == BASE.fingerprint
    assert record["method"] == "token_gate" and record["needs"] == ["expert_labels"]
    assert record["config"]["steps"] == GATE.Config().steps


def test_other_experts_are_refused_by_name(folder, pool):
    with pytest.raises(UserError, match="was fitted with expert 'bob', which the pool lacks"):
        back(folder, tiny.pool(BASE, "ann", capacity=3))
    with pytest.raises(UserError, match="the pool has expert 'cy', which the fit did not"):
        back(folder, tiny.pool(BASE, "ann", "bob", "cy"))
    changed = replace(pool, infos=(pool.infos[0], {"hash": "sha256:other"}))
    with pytest.raises(UserError, match="expert 'bob' has changed since the fit"):
        back(folder, changed)
    with pytest.raises(UserError, match="was fitted with 3 expert slots"):
        back(folder, tiny.pool(BASE, "ann", "bob", capacity=4))


def test_another_method_base_or_setting_is_refused(folder, pool):
    with pytest.raises(UserError, match="a router of 'token_gate', expected one of 'uniform'"):
        back(folder, pool, load("uniform"))
    with pytest.raises(UserError, match="another base"):
        back(folder, pool, base=replace(BASE, fingerprint="other"))
    with pytest.raises(UserError, match=r"other settings \(steps: \d+ there, 7 here\)"):
        back(folder, pool, config=GATE.Config(steps=7))


@pytest.mark.parametrize("text", ["", "[]", "{", '{"method": "token_gate"}'])
def test_half_a_record_is_no_router(folder, pool, text):
    (folder / "router.json").write_text(text)
    with pytest.raises(UserError, match="not a whole router"):
        back(folder, pool)


def test_half_the_arrays_are_refused_and_a_router_being_written_is_none(folder, pool, monkeypatch):
    whole = (folder / "router.safetensors").read_bytes()
    (folder / "router.safetensors").write_bytes(whole[:-10])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        back(folder, pool)

    def killed(path, tree):
        raise KeyboardInterrupt

    monkeypatch.setattr(router_file.tree_file, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        router_file.save(folder, GATE, GATE.Config(), BASE, pool, router(pool))
    with pytest.raises(UserError, match="not a whole router"):
        back(folder, pool)


def test_an_open_router_takes_the_experts_that_are_there_and_keeps_its_knobs(tmp_path, pool):
    arrow = load("arrow")
    tuned = Fitted({"places": {}, "knobs": {"temperature": jnp.float32(0.25)}}, pool.names)
    router_file.save(tmp_path, arrow, arrow.Config(), BASE, pool, tuned)
    for other in (tiny.pool(BASE, "ann"), tiny.pool(BASE, "cy", "ann", "dan"), pool):
        found, same = back(tmp_path, other, arrow)
        assert found.names == same.names == other.names
        assert float(found.router["knobs"]["temperature"]) == 0.25


def test_an_open_router_names_the_expert_that_brings_too_little(tmp_path):
    fit = worlds.fitted("encoder", "average_activation")
    router_file.save(tmp_path, fit.method, fit.config, BASE, fit.pool, fit.router)
    more = fit.pool.append(tiny.expert(BASE, "dan"))
    with pytest.raises(NotApplicable, match="dan has no activation"):
        back(tmp_path, more, fit.method, fit.config)
