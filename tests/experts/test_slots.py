"""Slots: what is brought in is there whole, the least recently used makes way, and nothing compiles or is copied."""

from collections import OrderedDict

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moejax.experts import bank as banks
from moejax.experts import slots as slots_
from moejax.experts import stacks
from moejax.experts.expert import Expert
from moejax.experts.lora import Lora
from moejax.experts.slots import Slots
from moejax.types import UserError

SHAPES, LAYERS = {"layers/attn/q": (6, 4), "layers/mlp/up": (6, 10)}, 3
WHERE = {"layers/attn/q": (0, 2), "layers/mlp/up": (1,)}
NAMES = "abcdefgh"


def expert(name):
    """One LoRA at a site that its name decides, with a bias for some; the factors follow from the name."""
    rng, path = np.random.default_rng(ord(name)), ("layers/attn/q", "layers/mlp/up")[ord(name) % 2]
    d, f = SHAPES[path]
    a, b = rng.normal(size=(2, d)).astype(np.float32), rng.normal(size=(2, f)).astype(np.float32)
    bias = rng.normal(size=f).astype(np.float32) if name in "ce" else None
    return Expert(name, {}, {(path, WHERE[path][0]): Lora(a, b, 4.0, bias=bias)})


def made(count, read=expert):
    bank = banks.stack([], SHAPES, LAYERS, count, 3, WHERE, biased=("layers/mlp/up",))
    return Slots(bank, read)


def at(slots, slot):
    """All that stands in a slot."""
    bank = jax.device_get(slots.bank)
    return {
        (path, name): leaf[:, slot]
        for path, s in bank.sites.items()
        for name, leaf in stacks.leaves(s).items()
    }


@given(st.lists(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5), max_size=8), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_what_is_asked_for_is_there_and_the_least_recently_used_makes_way(asked, count):
    read, held = [], OrderedDict()
    slots = made(count, lambda name: read.append(name) or expert(name))
    whole = jax.device_get(banks.stack([expert(name) for name in NAMES], SHAPES, LAYERS, None, 3, WHERE))
    for names in asked:
        if len(set(names)) > count:
            with pytest.raises(
                UserError, match=f"uses {len(set(names))} experts, and pool_slots has room for"
            ):
                slots.bring(names)
            continue
        before, wanted = len(read), list(dict.fromkeys(names))
        for name in wanted:
            if name in held:
                held.move_to_end(name)
        missing = [name for name in wanted if name not in held]
        for name in missing:
            if len(held) == count:
                held.popitem(last=False)
            held[name] = None
        found = slots.bring(names)
        assert read[before:] == missing
        assert {name for name in slots.names if name} == set(held)
        for name, slot in zip(names, found, strict=True):
            assert slots.names[slot] == name and bool(slots.bank.alive[slot])
            for (path, leaf), value in at(slots, slot).items():
                expected = getattr(whole.sites[path], leaf)[:, NAMES.index(name)]
                np.testing.assert_array_equal(value, expected)


def test_bringing_in_compiles_once_and_gives_up_the_bank_before():
    slots = made(2)
    slots.bring("a")
    programs, before = slots_._write._cache_size(), slots.bank
    for name in "bcdefgh":
        slots.bring(name)
    assert slots_._write._cache_size() == programs
    assert before.sites["layers/attn/q"].a.is_deleted()


def test_a_write_needs_no_room_for_a_second_bank():
    slots = made(64)
    row = banks.row(slots.bank, expert("a"))
    needs = slots_._write.lower(slots.bank, row, np.int32(3)).compile().memory_analysis()
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(slots.bank))
    assert needs.alias_size_in_bytes >= 0.95 * size and needs.temp_size_in_bytes < 0.2 * size


def test_an_expert_that_cannot_be_read_takes_nobodys_place():
    def read(name):
        if name == "d":
            raise UserError("d is damaged")
        return expert(name)

    slots = made(2, read)
    slots.bring("ab")
    before = at(slots, 0), at(slots, 1)
    with pytest.raises(UserError, match="d is damaged"):
        slots.bring("d")
    assert set(slots.names) == {"a", "b"}
    jax.tree.map(np.testing.assert_array_equal, (at(slots, 0), at(slots, 1)), before)


def test_an_expert_that_does_not_fit_is_refused_by_name():
    slots = made(
        2, lambda name: Expert(name, {}, {("layers/mlp/up", 2): expert("b").loras["layers/attn/q", 0]})
    )
    with pytest.raises(UserError, match="no slot for 'layers/mlp/up' at layer 2, which expert 'x' adapts"):
        slots.bring("x")
