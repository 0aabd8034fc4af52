"""Rows over devices: each is read once, where it lies, and a batch in parts is the batch."""

import jax
import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from moejax.parallel import spread
from moejax.train.rows import batches, bound, drawn, over, pooled

SIZE = 12
ROWS = {
    name: tiny.rows(tiny.base("encoder"), 5 + 4 * i, seed=i) for i, name in enumerate(("ann", "bob", "cy"))
}
STREAMS = {
    "drawn": drawn(ROWS["cy"], SIZE, 3),
    "bound": bound(ROWS, list(ROWS), 4, 3),
    "pooled": pooled(ROWS, list(ROWS), SIZE, 3),
}


def same(one, other):
    for a, b in zip(one, other, strict=True):
        assert (a is None) == (b is None)
        np.testing.assert_array_equal(a, b)


def sharding(*shape: int, over: tuple[str, ...] = ("data",), names: tuple[str, ...] = ("data", "model")):
    return NamedSharding(Mesh(np.array(jax.devices()[: np.prod(shape)]).reshape(shape), names), P(over))


@pytest.mark.parametrize("name", STREAMS)
@given(st.integers(0, 20), st.sets(st.integers(0, SIZE - 1), min_size=1))
@settings(max_examples=20, deadline=None)
def test_any_rows_of_a_step_are_those_of_the_whole_batch(name, step, numbers):
    some = np.array(sorted(numbers))
    whole, part = STREAMS[name](step), STREAMS[name].read(step, some)
    same(part, [None if leaf is None else leaf[some] for leaf in whole])


@pytest.mark.parametrize(("shape", "each"), [((4, 1), 3), ((2, 4), 6)])
def test_a_batch_lies_in_parts_of_its_rows(shape, each):
    stream = STREAMS["bound"]
    found = over(stream, 5, sharding(*shape))
    same(found, stream(5))
    assert {shard.data.shape[0] for shard in found.tokens.addressable_shards} == {each}


def test_the_rows_of_a_process_are_those_of_its_devices(monkeypatch):
    whole = NamedSharding.devices_indices_map

    def of_two(self, shape):
        return {device: rows for device, rows in whole(self, shape).items() if device.id in (1, 5)}

    monkeypatch.setattr(NamedSharding, "addressable_devices_indices_map", of_two)
    assert spread.rows_of(sharding(8, 1), 24).tolist() == [3, 4, 5, 15, 16, 17]
    assert spread.rows_of(sharding(2, 4), 6).tolist() == [0, 1, 2, 3, 4, 5]


def test_rows_that_do_not_split_are_read_whole():
    stream = STREAMS["drawn"]
    for rows in (None, sharding(8, 1)):  # 12 rows over 8 devices
        found = over(stream, 2, rows)
        assert isinstance(found.tokens, np.ndarray)
        same(found, stream(2))


def test_rows_of_devices_in_any_order_are_known():
    devices = np.array(jax.devices())[[5, 0, 3, 1, 7, 2, 6, 4]].reshape(4, 2)
    rows = NamedSharding(Mesh(devices, ("data", "model")), P(("data",)))
    np.testing.assert_array_equal(spread.rows_of(rows, SIZE), np.arange(SIZE))
    found = spread.spread(lambda numbers: STREAMS["drawn"].read(0, numbers), SIZE, rows)
    same(found, STREAMS["drawn"](0))


def test_the_last_batch_is_filled_with_its_first_row():
    rows = ROWS["bob"]
    (first, six), (last, three) = batches(rows, 6)
    assert (six, three) == (6, 3)
    np.testing.assert_array_equal(last.weight, [1, 1, 1, 0, 0, 0])
    np.testing.assert_array_equal(first.tokens, rows.take(np.arange(6)).tokens)
    np.testing.assert_array_equal(last.tokens, rows.take(np.array([6, 7, 8, 6, 6, 6])).tokens)


def test_with_one_process_nothing_is_moved():
    tree = {"a": np.ones(3), "b": None}
    assert spread.everywhere(tree) is tree
    assert spread.by_rows() is None and spread.replicated() is None
