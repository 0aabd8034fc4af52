"""The stream: every row once an epoch, the same from the same seed, resumed exactly."""

import json

import numpy as np
import pytest

from moejax.data.stream import iterate, stream
from moejax.types import Batch, UserError


@pytest.fixture
def rows() -> Batch:
    tokens = np.arange(10, dtype=np.int32)[:, None]
    return Batch(tokens, tokens >= 0, tokens >= 0, targets=np.arange(10, dtype=np.int32) * 2)


def drawn(batches, steps) -> list[int]:
    return [int(token) for step in steps for token in batches[step].tokens[:, 0]]


def test_each_epoch_has_every_row_once_in_a_new_order(rows):
    seen = drawn(stream(rows, 5, seed=3), range(6))
    epochs = [seen[:10], seen[10:20], seen[20:]]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_a_step_does_not_depend_on_what_was_read_before(rows):
    batches = stream(rows, 4, seed=3)
    late = batches[7]
    np.testing.assert_array_equal(late.tokens, stream(rows, 4, seed=3)[7].tokens)
    np.testing.assert_array_equal(late.targets, late.tokens[:, 0] * 2)
    np.testing.assert_array_equal(late.weight, np.ones(4))
    assert late.answer is None and late.mask.shape == (4, 1)


def test_seeds_differ(rows):
    assert drawn(stream(rows, 5, seed=0), range(2)) != drawn(stream(rows, 5, seed=1), range(2))


def test_an_iterator_resumes_exactly(rows):
    batches = stream(rows, 3, seed=1)
    first = iterate(batches)
    for _ in range(5):
        next(first)
    state = json.loads(json.dumps(first.get_state()))
    ahead = [next(first) for _ in range(4)]
    again = iterate(stream(rows, 3, seed=1), state)
    for one in ahead:
        np.testing.assert_array_equal(one.tokens, next(again).tokens)
    np.testing.assert_array_equal(ahead[0].tokens, batches[5].tokens)


def test_processes_share_one_global_order(rows):
    whole = stream(rows, 4, seed=2)
    parts = [stream(rows, 4, seed=2, process=p, processes=2) for p in range(2)]
    for step in range(4):
        joined = np.concatenate([part[step].tokens for part in parts])
        np.testing.assert_array_equal(joined, whole[step].tokens)


def test_fewer_rows_than_a_batch_come_again(rows):
    assert sorted(drawn(stream(rows, 20, seed=0), [0])) == sorted([*range(10), *range(10)])


def test_what_cannot_be_drawn_is_refused(rows):
    with pytest.raises(UserError, match="a batch of 3 rows does not divide among 2"):
        stream(rows, 3, seed=0, processes=2)
    with pytest.raises(UserError, match="no rows"):
        stream(Batch(*(None if leaf is None else leaf[:0] for leaf in rows)), 3, seed=0)
