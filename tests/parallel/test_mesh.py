"""The mesh: sizes that fit the devices, and where every leaf lies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P
from joint_case import CONFIGS, arrays_of, bank_of, base_of

from moejax.experts.bank import stack
from moejax.parallel.mesh import AXES, MeshConfig, make_mesh, on, sizes, whole
from moejax.parallel.rules import RULES, placed, plan, spec_of
from moejax.types import UserError


@pytest.mark.parametrize(
    ("config", "devices", "wanted"),
    [
        (MeshConfig(), 8, (8, 1, 1)),
        (MeshConfig(expert=4), 8, (2, 4, 1)),
        (MeshConfig(2, 2, 2), 8, (2, 2, 2)),
        (MeshConfig(), 1, (1, 1, 1)),
    ],
)
def test_the_data_axis_takes_what_the_others_leave(config, devices, wanted):
    assert sizes(config, devices) == wanted


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (MeshConfig(expert=3), "mesh.expert 3 \\* mesh.model 1 does not divide the 8 devices"),
        (MeshConfig(data=2, expert=2), "= 4, but there are 8 devices:"),
        (MeshConfig(expert=0), "mesh.expert is 0: it must be at least 1"),
    ],
)
def test_axes_that_do_not_fit_are_refused_by_name(config, said):
    with pytest.raises(UserError, match=said):
        sizes(config, 8)


MESH = AbstractMesh((2, 2, 2), AXES)


@pytest.mark.parametrize(
    ("path", "shape", "wanted"),
    [
        ("params/layers/attn/q/kernel", (3, 16, 8), P(None, "data", "model")),
        ("params/layers/mlp/down/kernel", (3, 24, 16), P(None, "model", "data")),
        ("params/layers/attn/q/kernel", (3, 15, 8), P(None, None, "model")),  # 15 does not divide
        ("params/layers/attn/q/bias", (3, 8), P(None, "model")),
        ("params/layers/attn/o/bias", (3, 8), P()),
        ("params/cross_layers/cross/k/kernel", (3, 16, 8), P(None, "data", "model")),
        ("params/embed/embedding", (40, 16), P(("model", "data"))),
        ("params/embed/embedding", (42, 16), P()),
        ("params/norm/scale", (16,), P()),
        ("bank/sites/layers/attn/q/a", (3, 4, 2, 16), P(None, "expert")),
        ("bank/sites/layers/attn/q/slot", (3,), P()),
        ("0/mu/bank/sites/layers/attn/q/b", (3, 4, 2, 16), P(None, "expert")),
        ("router/places/layers/attn/q/gate", (3, 4, 16), P()),
    ],
)
def test_the_first_rule_that_matches_wins_and_an_axis_that_does_not_divide_is_left_out(path, shape, wanted):
    assert spec_of(path, shape, RULES, MESH) == wanted


def test_a_plan_tells_bytes_in_all_and_on_a_device_before_anything_is_allocated():
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arrays_of(CONFIGS["decoder"])
    )
    lines = {line.group: line for line in plan(shapes, MESH)}
    q = lines["params/layers/attn/q"]
    assert (q.spec, q.bytes, q.each) == ("(None, 'data', 'model')", 3 * 16 * 16 * 4, 3 * 16 * 16)
    down = [line for line in plan(shapes, MESH) if line.group == "bank/sites/layers/mlp/down"]
    assert {line.spec for line in down} == {"(None, 'expert')", "()"}


def test_arrays_lie_where_the_plan_says():
    arrays = arrays_of(CONFIGS["encoder"])
    with jax.set_mesh(make_mesh(MeshConfig(2, 2, 2))):
        there = placed(arrays)
    wanted = sum(line.each for line in plan(arrays, MESH))
    first = [shard.data.nbytes for leaf in jax.tree.leaves(there) for shard in leaf.addressable_shards[:1]]
    assert sum(first) == wanted
    jax.tree.map(np.testing.assert_array_equal, arrays, there)


def test_a_bank_is_padded_to_the_mesh_with_experts_that_are_not_alive():
    config = CONFIGS["encoder"]
    few = bank_of(config)
    assert few.alive.shape == (4,)
    with jax.set_mesh(make_mesh(MeshConfig(expert=8))):
        padded = bank_of(config)
        assert whole(4, "expert") == whole(8, "expert") == 8
        assert stack([], base_of(config).shapes, config.layers).alive.shape == (0,)
    assert padded.alive.tolist() == [True] * 4 + [False] * 4
    for path, one in padded.sites.items():
        assert not np.asarray(one.present)[:, 4:].any()
        assert len(one.a.sharding.device_set) == 8
        np.testing.assert_array_equal(one.a[:, :4], few.sites[path].a)


def test_one_device_needs_no_mesh_and_eight_have_one(monkeypatch):
    with on(MeshConfig(expert=2)):
        assert dict(jax.sharding.get_mesh().shape) == {"data": 4, "expert": 2, "model": 1}
        jax.block_until_ready(jnp.zeros(8))
    with on(MeshConfig()):  # parts of one CPU
        assert jax.sharding.get_mesh().empty
    one = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: one)
    with on(MeshConfig()):
        assert jax.sharding.get_mesh().empty
    with pytest.raises(UserError, match="does not divide the 1 devices"), on(MeshConfig(expert=2)):
        pass
