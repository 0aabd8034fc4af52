"""A pool on disk gives what it gives in memory: every method that names a few, scored, written and looked at."""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import world as worlds

from moejax.evaluate import routing
from moejax.evaluate.asked import owned
from moejax.evaluate.program import answers
from moejax.evaluate.told import likelihoods, written
from moejax.experts.files import write
from moejax.experts.member import OnBase
from moejax.experts.open_pool import open_pool
from moejax.experts.pool import read_pool
from moejax.methods import TABLE, load
from moejax.paged import Paged, check, for_batch, paged
from moejax.parallel.mesh import MeshConfig, make_mesh
from moejax.types import NotApplicable, UserError, Weights

NAMES = ("ann", "bob", "cy", "dan", "eve")
FEW = [
    line
    for line, (name, options) in worlds.LINES.items()
    if load(name).few and name != "base" and options.get("kind", "lora") == "lora"
]


@cache
def folders(kind):
    """Five experts of a base on disk; ranks and scales differ, and one leaves a site alone."""
    base, root = tiny.base(kind), Path(mkdtemp(prefix="moejax-paged-"))
    for rank, name in enumerate(NAMES, 1):
        one = tiny.expert(base, name, 1 + rank % 2, float(rank), name != "cy")
        write(root / name, one, base.sites, fingerprint=base.fingerprint)
    return root


def pools(kind, slots=3):
    """The same experts on disk with a few slots, and in memory."""
    base, root = tiny.base(kind), folders(kind)
    known = OnBase(base.sites, base.shapes, base.fingerprint)
    few, _ = open_pool([(name, root / name) for name in NAMES], known, base.layers, slots)
    return few, read_pool(root, base.sites, base.shapes, base.layers, base.fingerprint)[0]


def made(kind, line, pool):
    """A line fitted on a pool: its program, and its arrays as they are given to a loop."""
    data = {name: worlds.split(tiny.base(kind), i) for i, name in enumerate(NAMES)}
    there = worlds.standard(kind)._replace(pool=pool, data=data)
    fit = worlds.fit(there, line, given=worlds.contributed(there, line, Path(mkdtemp())))
    return paged(fit.adapted, fit.arrays, fit.pool)


def rows(kind, count=11, seed=5):
    """Rows with their own experts in no order."""
    some = owned(tiny.rows(tiny.base(kind), count, seed=seed), 0)
    some.whole.expert[:] = np.random.default_rng(0).permutation(count) % len(NAMES)
    return some


def told(kind, adapted, arrays, some):
    if kind == "encoder":
        return answers(adapted, arrays, some, 2)
    return likelihoods(adapted, arrays, some, 2)


@pytest.mark.parametrize(
    ("kind", "line"),
    [*(("encoder", line) for line in FEW), ("decoder", "own_expert"), ("decoder", "loraretriever(centroids)"),
     ("decoder", "lorahub"), ("seq2seq", "loraretriever(fusion)")],
)  # fmt: skip
def test_a_pool_on_disk_answers_as_one_in_memory(kind, line):
    few, full = pools(kind, slots=5 if line.startswith("lorahub") else 4)
    some, (adapted, arrays) = rows(kind), made(kind, line, few)
    assert isinstance(arrays, Paged)
    found, expected = told(kind, adapted, arrays, some), told(kind, *made(kind, line, full), some)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_what_is_brought_in_is_what_was_chosen(monkeypatch):
    few, _ = pools("encoder")
    adapted, arrays = made("encoder", "own_expert", few)
    brought, bring = [], few.slots.bring
    monkeypatch.setattr(few.slots, "bring", lambda names: brought.append(set(names)) or bring(names))
    some = rows("encoder")
    answers(adapted, arrays, some, 3)
    owner = some.whole.expert
    filled = np.array([*owner, owner[9]])  # the last batch is filled with its first row
    assert brought == [{NAMES[e] for e in part} for part in filled.reshape(4, 3)]


def test_values_change_and_nothing_compiles():
    few, _ = pools("encoder")
    adapted, arrays = made("encoder", "loraretriever(centroids)", few)
    answers(adapted, arrays, rows("encoder"), 2)
    before = few.slots.names
    with worlds.compiles() as compiled:
        for seed in range(4):
            answers(adapted, arrays, rows("encoder", seed=seed), 2)
    assert compiled == [] and few.slots.names != before


def test_what_is_written_is_the_same():
    few, full = pools("decoder")

    class Tokens:
        eos_token_id, pad_token_id = None, 0

        def decode(self, ids, skip_special_tokens):
            return " ".join(map(str, ids))

    some, tokens = rows("decoder"), Tokens()
    found, expected = (
        written(*made("decoder", "own_expert", pool), some, tokens, 2, most=5) for pool in (few, full)
    )
    assert found == expected and len(set(found)) > 1


@pytest.mark.parametrize("line", ["own_expert", "loraretriever(centroids)"])
def test_what_a_router_does_is_told_of_all_experts(line):
    few, full = pools("encoder")
    batch = jax.tree.map(jnp.asarray, rows("encoder").take(np.arange(3)))
    seen = []
    for pool in (few, full):
        adapted, arrays = made("encoder", line, pool)
        seen.append(routing.over_all(routing.look(for_batch(arrays, batch), batch, adapted=adapted), arrays))
        assert routing.named(arrays["bank"], NAMES) == dict(enumerate(NAMES))
    found, expected = jax.device_get(seen)
    assert found.sites.keys() == expected.sites.keys()
    for path, sums in found.sites.items():
        for mine, theirs in zip(sums, expected.sites[path], strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-5)
    np.testing.assert_allclose(found.each, expected.each, atol=1e-5)


def test_slots_lie_over_the_devices_of_a_mesh():
    some = rows("encoder", 16)
    expected = told("encoder", *made("encoder", "own_expert", pools("encoder")[1]), some)
    with jax.set_mesh(make_mesh(MeshConfig(2, 4, 1))):
        few, _ = pools("encoder", slots=8)
        adapted, arrays = made("encoder", "own_expert", few)
        found = answers(adapted, arrays, some, 8)
        for path, stack in few.slots.bank.sites.items():
            assert "expert" in stack.a.sharding.spec, (
                path
            )  # two slots a device, after all that was written there
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_more_experts_in_a_batch_than_slots_are_refused():
    few, _ = pools("encoder", slots=2)
    with pytest.raises(UserError, match="one batch uses 5 experts, and pool_slots has room for 2: give"):
        answers(*made("encoder", "own_expert", few), rows("encoder"), 8)


def test_who_weighs_all_is_refused_in_a_sentence():
    refused = [name for name in TABLE if not load(name).few]
    assert {"arrow", "uniform", "phatgoose", "routellm"} <= set(refused)
    for name in refused:
        with pytest.raises(NotApplicable, match=f"^{name} weighs all experts of the pool, and pool_slots"):
            check(name, load(name))


def test_a_route_that_weighs_all_cannot_be_paged():
    few, _ = pools("encoder")
    adapted, arrays = made("encoder", "own_expert", few)
    dense = Paged(lambda arrays, batch: Weights(jnp.ones(5) / 5), arrays.arrays, NAMES, few.slots)
    with pytest.raises(ValueError, match="needs all of them in memory"):
        answers(adapted, dense, rows("encoder"), 2)


def test_a_pool_in_memory_stays_as_it_is():
    _, full = pools("encoder")
    fit = worlds.fitted("encoder", "own_expert")
    assert paged(fit.adapted, fit.arrays, full)[1] is fit.arrays
    batch = rows("encoder").take(np.arange(2))
    assert for_batch(fit.arrays, batch) is fit.arrays
