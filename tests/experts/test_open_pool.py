"""A pool whose factors stay on disk: what headers tell, what is refused, and when anything is read."""

import json

import jax
import numpy as np
import pytest

from moejax.experts import bank as banks
from moejax.experts import stacks
from moejax.experts.files import write
from moejax.experts.folder import INFO, WEIGHTS, Tensors
from moejax.experts.member import OnBase
from moejax.experts.open_pool import open_pool
from moejax.experts.pool import folders_of, read_pool
from moejax.types import UserError

Q, UP = "layers/attn/q", "layers/mlp/up"
SITES = {
    "alpha": {(Q, 1): (1, 8.0, True), (Q, 2): (1, 2.0, True)},
    "beta": {(Q, 1): (2, 4.0, False), (UP, 2): (3, 6.0, False)},
    "gamma": {(UP, 0): (2, 4.0, False)},
}


@pytest.fixture
def folder(tiny, tmp_path):
    """Three experts of different sites, layers, ranks and scales."""
    for seed, (name, sites) in enumerate(SITES.items()):
        write(tmp_path / "pool" / name, tiny.expert(name, sites, seed), tiny.sites)
    return tmp_path / "pool"


@pytest.fixture
def no_factor(monkeypatch):
    """Reading any tensor is an error from here on."""

    def read(self, name):
        raise AssertionError(f"{self.path}: {name} was read")

    monkeypatch.setattr(Tensors, "read", read)


def known(tiny, **options):
    return OnBase(tiny.sites, tiny.shapes, tiny.fingerprint, **options)


def opened(tiny, folder, slots=2, **options):
    some = [(path.name, path) for path in folders_of(folder)]
    return open_pool(some, known(tiny), tiny.layers, slots, **options)


def whole(tiny, folder, **options):
    return read_pool(folder, tiny.sites, tiny.shapes, tiny.layers, tiny.fingerprint, **options)


def test_headers_tell_all_but_the_factors(tiny, folder, no_factor, monkeypatch):
    pool, reports = opened(tiny, folder, capacity=4)
    monkeypatch.undo()
    full, others = whole(tiny, folder, capacity=4)
    assert pool.names == full.names and pool.infos == full.infos and pool.folders == full.folders
    assert (pool.kinds, pool.lowest, banks.size(pool.bank)) == (full.kinds, full.lowest, 4)
    np.testing.assert_array_equal(pool.bank.alive, full.bank.alive)
    assert pool.bank.sites.keys() == full.bank.sites.keys()
    for path, stack in pool.bank.sites.items():
        assert stacks.leaves(stack).keys() == {"scale", "present"}
        for leaf in ("scale", "present", "slot"):
            np.testing.assert_array_equal(getattr(stack, leaf), getattr(full.bank.sites[path], leaf))
    for mine, theirs in zip(reports, others, strict=True):
        assert (mine.matched, mine.scale, mine.hash) == (theirs.matched, theirs.scale, theirs.hash)
        assert mine.warnings == theirs.warnings


def test_the_slots_hold_what_the_whole_bank_holds(tiny, folder):
    pool, _ = opened(tiny, folder)
    bank = jax.device_get(whole(tiny, folder)[0].bank)
    for names in (["gamma", "alpha"], ["beta"], ["alpha", "beta"]):
        for name, slot in zip(names, pool.slots.bring(names), strict=True):
            for path, stack in jax.device_get(pool.slots.bank).sites.items():
                assert stack.a.shape[:3] == (bank.sites[path].a.shape[0], 2, 3)
                for leaf, value in stacks.leaves(stack).items():
                    expected = getattr(bank.sites[path], leaf)[:, pool.index(name)]
                    np.testing.assert_array_equal(value[:, slot], expected)


def test_an_expert_without_a_hash_is_read_once_for_it(tiny, folder):
    info = json.loads((folder / "beta" / INFO).read_text())
    (folder / "beta" / INFO).write_text(json.dumps({**info, "hash": None}))
    (folder / "gamma" / INFO).unlink()
    assert [i["hash"] for i in opened(tiny, folder)[0].infos] == [
        i["hash"] for i in whole(tiny, folder)[0].infos
    ]


def test_twins_are_told_by_their_hashes(tiny, folder):
    write(folder / "delta", tiny.expert("delta", SITES["beta"], 1), tiny.sites)
    assert opened(tiny, folder)[1][2].warnings == ("experts 'beta' and 'delta' hold the same weights",)


def test_an_expert_that_has_changed_since_is_not_brought_in(tiny, folder):
    pool, _ = opened(tiny, folder)
    write(folder / "beta", tiny.expert("beta", SITES["beta"], 7), tiny.sites)
    with pytest.raises(UserError, match="beta has changed since the pool was opened"):
        pool.slots.bring(["beta"])


def test_damage_is_found_when_an_expert_is_brought_in(tiny, folder):
    data = bytearray((folder / "beta" / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (folder / "beta" / WEIGHTS).write_bytes(data)
    pool, _ = opened(tiny, folder)
    pool.slots.bring(["alpha"])
    with pytest.raises(UserError, match="its content is not what"):
        pool.slots.bring(["beta"])


def test_a_wrong_shape_is_found_at_once(tiny, folder, no_factor):
    wrong = tiny._replace(shapes=tiny.shapes | {UP: (5, 12)})
    with pytest.raises(UserError, match=r"has shape \[3, 8\]: expected \[3, 5\]"):
        opened(wrong, folder)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "is no LoRA of PEFT, and pool_slots holds LoRAs alone: leave pool_slots out"),
        ({"config.json": "{}"}, "is no LoRA of PEFT"),
        ({"adapter_config.json": '{"config": {}, "model_type": "bert"}'}, "is no LoRA of PEFT"),
    ],
)
def test_other_experts_are_refused(tiny, folder, files, said):
    (folder / "other").mkdir()
    for name, text in files.items():
        (folder / "other" / name).write_text(text)
    with pytest.raises(UserError, match=said):
        opened(tiny, folder)


def test_names_and_capacity_are_checked(tiny, folder):
    twice = [("one", folder / "beta"), ("one", folder / "alpha")]
    with pytest.raises(UserError, match="two experts are named 'one'"):
        open_pool(twice, known(tiny), tiny.layers, 2)
    with pytest.raises(UserError, match="capacity 2 is too small for 3 experts"):
        opened(tiny, folder, capacity=2)
