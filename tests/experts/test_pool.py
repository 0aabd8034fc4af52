"""A pool of folders: names, extras behind permissions, growing and choosing."""

import json

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moejax.experts import bank as banks
from moejax.experts import extras as extras_
from moejax.experts import lora
from moejax.experts.content_hash import content_hash
from moejax.experts.files import write
from moejax.experts.folder import EXTRAS, SAMPLES, write_tensors
from moejax.experts.pool import pool_of, read_pool
from moejax.types import AccessDenied, NotApplicable, UserError

Q, UP = "layers/attn/q", "layers/mlp/up"


@pytest.fixture
def pool(tiny, tmp_path):
    """Two experts on disk, of different sites; the bank has q at layers 1, 2 and up at 2."""
    for seed, (name, sites) in enumerate(
        {
            "beta": {(Q, 1): (2, 4.0, False), (UP, 2): (3, 6.0, False)},
            "alpha": {(Q, 1): (1, 8.0, True), (Q, 2): (1, 2.0, True)},
        }.items()
    ):
        write(tmp_path / "pool" / name, tiny.expert(name, sites, seed), tiny.sites)
    (tmp_path / "pool" / ".hidden").mkdir()
    (tmp_path / "pool" / "README.md").write_text("not an expert")
    return opened(tiny, tmp_path, capacity=3)


def opened(tiny, tmp_path, **options):
    return read_pool(tmp_path / "pool", tiny.sites, tiny.shapes, tiny.layers, tiny.fingerprint, **options)[0]


def dense(bank, path, layer, i):
    stack = jax.device_get(bank.sites[path])
    slot = stack.slot[layer]
    return stack.scale[slot, i] * stack.a[slot, i].T @ stack.b[slot, i]


def gates(pool, seed):
    """A value for every slot of the bank, as a contributor's program hands it over."""
    rng = np.random.default_rng(seed)
    return {
        p: rng.normal(size=(s.a.shape[0], s.a.shape[3])).astype(np.float32)
        for p, s in pool.bank.sites.items()
    }


def test_a_pool_is_read_in_the_order_of_its_names(tiny, tmp_path, pool):
    assert pool.names == ("alpha", "beta") and [info["task"] for info in pool.infos] == ["alpha", "beta"]
    assert banks.size(pool.bank) == 3 and pool.bank.alive.tolist() == [True, True, False]
    banks.check(pool.bank)
    beta = tiny.expert("beta", {(Q, 1): (2, 4.0, False), (UP, 2): (3, 6.0, False)}, 0)
    np.testing.assert_allclose(dense(pool.bank, Q, 1, 1), lora.delta(beta.loras[Q, 1]), rtol=1e-5)
    np.testing.assert_allclose(dense(pool.bank, UP, 2, 1), lora.delta(beta.loras[UP, 2]), rtol=1e-5)
    assert pool.infos[1]["hash"] == content_hash(beta.loras)
    assert pool.index("beta") == 1
    with pytest.raises(UserError, match="no expert 'betta' .closest: 'beta'"):
        pool.index("betta")


def test_the_reports_know_the_pool(tiny, tmp_path, pool):
    write(
        tmp_path / "pool" / "gamma",
        tiny.expert("gamma", {(Q, 1): (2, 4.0, False), (UP, 2): (3, 6.0, False)}),
        tiny.sites,
    )
    _, reports = read_pool(tmp_path / "pool", tiny.sites, tiny.shapes, tiny.layers, tiny.fingerprint)
    assert [report.name for report in reports] == ["alpha", "beta", "gamma"]
    assert len({report.median for report in reports}) == 1
    assert reports[2].warnings == ("experts 'beta' and 'gamma' hold the same weights",)


def test_a_folder_without_experts_is_refused(tiny, tmp_path):
    with pytest.raises(UserError, match="no such folder of experts"):
        opened(tiny, tmp_path)
    (tmp_path / "pool").mkdir()
    with pytest.raises(UserError, match="no expert in it"):
        opened(tiny, tmp_path)
    (tmp_path / "pool" / "empty").mkdir()
    with pytest.raises(UserError, match="empty/adapter_config.json: no such file"):
        opened(tiny, tmp_path)


def test_bad_names_in_a_folder_are_refused(tiny, tmp_path, pool):
    (tmp_path / "pool" / "Alpha").mkdir()
    with pytest.raises(UserError, match="differ only in case"):
        opened(tiny, tmp_path)
    (tmp_path / "pool" / "Alpha").rename(tmp_path / "pool" / "x\ny")
    with pytest.raises(UserError, match="cannot name an expert"):
        opened(tiny, tmp_path)


def test_an_extra_is_read_only_with_permission(pool):
    granted = pool.with_extras({name: {"gate": gates(pool, 0)} for name in pool.names})
    for denied in (granted, granted.allow("mean"), granted.allow("gate").allow()):
        with pytest.raises(AccessDenied, match="the extra 'gate' was read"):
            denied.extra("gate")
        with pytest.raises(AccessDenied):
            denied.stacked_extra("gate")
    assert len(granted.allow("gate", "mean").extra("gate")) == 2


def test_an_expert_without_the_extra_is_named(pool):
    half = pool.with_extras({"alpha": {"gate": gates(pool, 0)}}).allow("gate")
    assert half.lacking("gate") == ("beta",) and pool.lacking("gate") == ("alpha", "beta")
    with pytest.raises(NotApplicable, match="beta has no gate"):
        half.extra("gate")
    with pytest.raises(UserError, match="no expert 'nobody'"):
        pool.with_extras({"nobody": {}})


def test_stacked_extras_lie_along_the_bank_and_are_zero_where_absent(tiny, tmp_path, pool):
    values = {name: {"gate": gates(pool, seed)} for seed, name in enumerate(pool.names)}
    held = pool.with_extras(values).allow("gate")
    held.save_extras(tmp_path / "pool")
    read_back = opened(tiny, tmp_path, capacity=3).allow("gate")
    for stacked in (held.stacked_extra("gate"), read_back.stacked_extra("gate")):
        assert {path: value.shape for path, value in stacked.items()} == {Q: (2, 3, 8), UP: (1, 3, 8)}
        np.testing.assert_array_equal(stacked[Q][:, 0], values["alpha"]["gate"][Q])
        np.testing.assert_array_equal(stacked[Q][0, 1], values["beta"]["gate"][Q][0])
        np.testing.assert_array_equal(stacked[UP][0, 1], values["beta"]["gate"][UP][0])
        assert not stacked[Q][1, 1].any() and not stacked[UP][:, 0].any() and not stacked[Q][:, 2].any()


def test_a_file_says_nothing_of_how_the_pool_was_stacked(tiny, tmp_path, pool):
    pool.with_extras({"beta": {"gate": gates(pool, 3)}}).save_extras(tmp_path / "pool")
    write(tmp_path / "pool" / "gamma", tiny.expert("gamma", {(Q, 0): (5, 1.0, False)}), tiny.sites)
    wider = opened(tiny, tmp_path)
    assert wider.bank.sites[Q].slot.tolist() == [0, 1, 2]
    gate = wider.take(["beta"]).allow("gate").stacked_extra("gate")[Q]
    np.testing.assert_array_equal(gate[1, 0], gates(pool, 3)[Q][0])
    assert not gate[0].any() and not gate[2].any()


def test_extras_of_every_form_share_a_folder(tiny, tmp_path, pool):
    gram = {Q: np.ones((2, 8, 8), np.float32)}
    rows = [{"text": "größe\n"}, {"text": "b", "n": 1}]
    both = {name: {"gram": gram, "mean@mini": np.arange(3.0), "samples": rows} for name in pool.names}
    pool.with_extras(both).save_extras(tmp_path / "pool")
    pool.with_extras({"alpha": {"mean@mini": np.arange(3.0) + 1}}).save_extras(tmp_path / "pool")
    back = opened(tiny, tmp_path).allow("gram", "mean@mini", "samples")
    assert back.extra("samples") == (rows, rows)
    assert [mean.tolist() for mean in back.extra("mean@mini")] == [[1, 2, 3], [0, 1, 2]]
    assert back.stacked_extra("gram")[Q].shape == (2, 2, 8, 8)
    assert extras_.names(tmp_path / "pool" / "alpha") == {"gram", "mean@mini", "samples"}
    assert extras_.read(tmp_path / "pool" / "alpha", "gate", tiny.sites, {}) is None


def test_damaged_extras_are_named(tiny, tmp_path, pool):
    folder = tmp_path / "pool" / "beta"
    write_tensors(folder / EXTRAS, {"gate:encoder.layer.1.attention.self.quary": np.ones(8)})
    with pytest.raises(
        UserError, match="'gate:encoder.layer.1.attention.self.quary' is for a module.*closest"
    ):
        pool.take(["beta"]).allow("gate").extra("gate")
    write_tensors(folder / EXTRAS, {"gate:encoder.layer.1.attention.self.query": np.full(8, np.nan)})
    with pytest.raises(UserError, match="holds NaN"):
        pool.take(["beta"]).allow("gate").extra("gate")
    query = "gate:encoder.layer.{}.attention.self.query"
    write_tensors(folder / EXTRAS, {query.format(1): np.ones(8), query.format(2): np.ones(7)})
    with pytest.raises(UserError, match=r"shape \[7\], another layer's \[8\]"):
        pool.take(["beta"]).allow("gate").extra("gate")
    (folder / EXTRAS).write_bytes(b"short")
    with pytest.raises(UserError, match="moejax_extras.safetensors: truncated"):
        pool.lacking("gate")
    for content, says in (
        (b'{"a": 1}\n{"b"', "line 2: not valid JSON"),
        (b"3\n", "line 1: expected a JSON object"),
    ):
        (folder / SAMPLES).write_bytes(content)
        with pytest.raises(UserError, match=f"moejax_samples.jsonl, {says}"):
            extras_.read(folder, "samples", tiny.sites, {}) if not (folder / EXTRAS).unlink(
                missing_ok=True
            ) else None
    with pytest.raises(UserError, match="'a:b' cannot name an extra"):
        extras_.write(folder, {"a:b": np.ones(2)}, tiny.sites, {}, ())


def test_experts_whose_extras_differ_in_shape_are_refused(pool):
    small = {path: value[:, :5] for path, value in gates(pool, 0).items()}
    odd = pool.with_extras({"alpha": {"gate": gates(pool, 0)}, "beta": {"gate": small}}).allow("gate")
    with pytest.raises(UserError, match="the experts' gate at 'layers/attn/q' differ in shape"):
        odd.stacked_extra("gate")


def test_appending_fills_a_free_slot_and_nothing_else_changes(tiny, pool):
    gamma = tiny.expert("gamma", {(Q, 2): (2, 1.0, False)}, 7)
    more = pool.append(gamma)
    assert more.names == ("alpha", "beta", "gamma") and pool.names == ("alpha", "beta")
    assert jax.tree.map(np.shape, more.bank) == jax.tree.map(np.shape, pool.bank)
    assert more.bank.alive.tolist() == [True] * 3 and more.infos[2]["hash"] == content_hash(gamma.loras)
    np.testing.assert_allclose(dense(more.bank, Q, 2, 2), lora.delta(gamma.loras[Q, 2]), rtol=1e-5)
    np.testing.assert_array_equal(dense(more.bank, Q, 2, 0), dense(pool.bank, Q, 2, 0))
    with pytest.raises(UserError, match="full with 3 experts"):
        more.append(tiny.expert("delta"))
    with pytest.raises(UserError, match="has an expert 'beta' already"):
        pool.append(tiny.expert("beta"))
    with pytest.raises(UserError, match="differ only in case"):
        pool.append(tiny.expert("BETA"))


@given(st.permutations(range(3)), st.integers(1, 3))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_taking_names_keeps_each_experts_own_things(tiny, order, count):
    experts = [tiny.expert(f"e{i}", {(Q, i): (i + 1, 2.0, False)}, i) for i in range(3)]
    pool = pool_of(experts, tiny.sites, tiny.shapes, tiny.layers)
    pool = pool.with_extras({e.name: {"mean": np.full(2, i)} for i, e in enumerate(experts)}).allow("mean")
    names = [f"e{i}" for i in order[:count]]
    few = pool.take(names)
    assert few.names == tuple(names) and banks.size(few.bank) == count and few.allowed == pool.allowed
    for place, i in enumerate(order[:count]):
        np.testing.assert_allclose(
            dense(few.bank, Q, i, place), lora.delta(experts[i].loras[Q, i]), rtol=1e-5
        )
        assert few.infos[place]["task"] == f"e{i}" and few.extra("mean")[place].tolist() == [i, i]


def test_a_pool_in_memory_needs_names_of_its_own(tiny):
    with pytest.raises(UserError, match="two experts are named 'a'"):
        pool_of([tiny.expert("a"), tiny.expert("b"), tiny.expert("a", seed=1)], tiny.sites, tiny.shapes, 3)
    with pytest.raises(UserError, match="cannot name an expert"):
        pool_of([tiny.expert("../a")], tiny.sites, tiny.shapes, 3)
    assert json.dumps(pool_of([tiny.expert("a")], tiny.sites, tiny.shapes, 3).infos)
