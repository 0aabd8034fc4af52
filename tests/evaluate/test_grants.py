"""What grants hand out: the right rows, without answers where they say so, and nothing behind them."""

import numpy as np
import pytest
import tiny
import world as worlds

from moejax.contract import Rows
from moejax.evaluate.grants import Grants, few, without_answers
from moejax.taxonomy import GRANTS
from moejax.types import AccessDenied, NotApplicable

ALL = frozenset(GRANTS)
READS = {
    "expert_labels": lambda world: (world.data["ann"], ("ann",)),
    "expert_inputs": lambda world: (world.data["ann"], ("ann",)),
    "general": lambda world: (world.public, ()),
    "target_labels": lambda world: (world.target.rows, ()),
    "target_inputs": lambda world: (world.target.rows, ()),
}


def everything(some: Rows):
    return some.take(np.arange(len(some)))


@pytest.mark.parametrize("name", READS)
def test_each_grant_hands_out_its_own_rows(name):
    world = worlds.standard("encoder")
    grants = worlds.grants(world, ALL)
    wanted, args = READS[name](world)
    found = getattr(grants, name)(*args)
    assert grants.log == {name}
    for mine, theirs in zip(found, wanted, strict=True):
        batch, whole = everything(mine), everything(theirs)
        assert np.array_equal(batch.tokens * batch.mask, whole.tokens * whole.mask)
        assert (batch.targets is None) == name.endswith("inputs")


def test_the_leaks_are_of_the_test_rows():
    world = worlds.standard("encoder")
    grants, whole = worlds.grants(world, ALL), everything(worlds.standard("encoder").target.test)
    assert np.array_equal(everything(grants.test_labels()).targets, whole.targets)
    batch = everything(grants.test_inputs())
    assert batch.targets is None and np.array_equal(batch.choices, whole.choices)
    assert np.array_equal(batch.tokens * batch.mask, whole.tokens * whole.mask)


def test_handed_rows_give_no_way_to_what_they_were_cut_from():
    world = worlds.standard("encoder")
    rows = worlds.grants(world, ALL).target_labels().train
    assert {name for name in dir(rows) if not name.startswith("_")} == {"take", "texts"}
    with pytest.raises(IndexError):
        rows.take(np.array([len(rows)]))


def test_a_decoders_inputs_end_where_the_request_does():
    whole = everything(tiny.rows(tiny.base("decoder"), 5))
    other = whole._replace(tokens=np.where(whole.prompt, whole.tokens, (whole.tokens + 9) % tiny.VOCAB),
                           targets=whole.targets + 1, expert=np.arange(5, dtype=np.int32),
                           prefix=np.where(whole.prompt, 1.0, 2.0)[..., None])  # fmt: skip
    whole = whole._replace(prefix=np.where(whole.prompt, 1.0, 3.0)[..., None])
    one, two = without_answers(whole), without_answers(other)
    for mine, theirs in zip(one, two, strict=True):
        assert (mine is None and theirs is None) or np.array_equal(mine, theirs)
    assert np.array_equal(one.mask, whole.prompt) and np.array_equal(one.prompt, whole.prompt)
    assert np.array_equal(one.tokens[one.mask], whole.tokens[whole.prompt])
    assert np.array_equal(one.prefix[..., 0], whole.prompt.astype(float))


def test_inputs_keep_what_a_request_consists_of():
    whole = everything(tiny.rows(tiny.base("encoder"), 3))
    whole = whole._replace(query=np.ones((3, 2), np.float32), weight=np.ones(3, np.float32))
    found = without_answers(whole)
    for name in ("mask", "prompt", "pool", "query", "weight"):
        assert np.array_equal(getattr(found, name), getattr(whole, name))


def test_what_does_not_exist_is_said():
    grants = Grants(ALL, {})
    with pytest.raises(NotApplicable, match="no public rows"):
        grants.general()
    with pytest.raises(AccessDenied, match="no target task"):
        grants.target_labels()


def test_few_rows_are_drawn_by_the_seed_without_repeating():
    rows = tiny.rows(tiny.base("encoder"), 30)
    some = few(rows, 8, seed=1)
    assert len(set(some.index)) == 8 and set(some.index) < set(rows.index)
    assert np.array_equal(few(rows, 8, seed=1).index, some.index)
    assert not np.array_equal(few(rows, 8, seed=2).index, some.index)
    assert np.array_equal(few(rows, 99, seed=1).index, rows.index)
    again = few(some, 3, seed=5)  # a draw of a draw points at the same rows
    assert set(again.index) < set(some.index)
    assert np.array_equal(again.take(np.arange(3)).tokens, rows.whole.tokens[again.index])
