"""The stacked bank: mixed ranks, alphas, paths and layers; append, drop and take."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moejax.experts import bank as banks
from moejax.experts import lora
from moejax.experts.bank import Bank
from moejax.experts.expert import Expert
from moejax.experts.lora import Lora
from moejax.types import UserError

SHAPES = {"layers/attn/q": (6, 4), "layers/mlp/up": (6, 10), "layers/mlp/down": (10, 6)}
LAYERS = 4


def made(name, sites, seed=0):
    """An expert with LoRAs at sites {(path, layer): (rank, alpha, rslora)}."""
    rng = np.random.default_rng(seed)
    loras = {}
    for (path, layer), (r, alpha, rslora) in sites.items():
        d, f = SHAPES[path]
        a, b = rng.normal(size=(r, d)).astype(np.float32), rng.normal(size=(r, f)).astype(np.float32)
        loras[path, layer] = Lora(a, b, alpha, rslora)
    return Expert(name, {"task": name}, loras)


def mixed():
    one = made("one", {("layers/attn/q", 1): (2, 4.0, False), ("layers/mlp/up", 3): (1, 1.0, True)}, 1)
    two = made("two", {("layers/attn/q", 3): (3, 16.0, True), ("layers/attn/q", 1): (1, 3.0, False)}, 2)
    return [one, two]


def sites():
    key = st.tuples(st.sampled_from(sorted(SHAPES)), st.integers(0, LAYERS - 1))
    value = st.tuples(st.integers(1, 4), st.sampled_from([1.0, 8.0, 5.5, -2.0]), st.booleans())
    return st.dictionaries(key, value, min_size=1, max_size=5)


def dense(bank, path, layer, i):
    """What expert slot i adds at a site, as a dense [d, f]; zero where it adds nothing."""
    stack = jax.device_get(bank.sites.get(path))
    if stack is None or stack.slot[layer] < 0:
        return np.zeros(SHAPES[path], np.float32)
    slot = int(stack.slot[layer])
    return stack.scale[slot, i] * stack.a[slot, i].T @ stack.b[slot, i]


@given(st.lists(sites(), min_size=1, max_size=3), st.integers(0, 2))
@settings(max_examples=30, deadline=None)
def test_stack_holds_every_experts_delta_and_nothing_else(pool, free):
    experts = [made(f"e{i}", some, i) for i, some in enumerate(pool)]
    bank = jax.device_get(banks.stack(experts, SHAPES, LAYERS, capacity=len(experts) + free))
    assert banks.size(bank) == len(experts) + free
    assert bank.alive.tolist() == [True] * len(experts) + [False] * free
    for i, expert in enumerate(experts):
        for path in SHAPES:
            for layer in range(LAYERS):
                own = expert.loras.get((path, layer))
                expected = lora.delta(own) if own else np.zeros(SHAPES[path])
                np.testing.assert_allclose(dense(bank, path, layer, i), expected, rtol=1e-5, atol=1e-5)


@given(sites(), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_an_expert_comes_back_as_it_went_in(some, seed):
    names = ["other", "mine"]
    mine = made("mine", some, seed)
    bank = jax.device_get(banks.stack([mixed()[0], mine], SHAPES, LAYERS))
    back = banks.expert(bank, names, 1, like=mine)
    assert back.name == "mine" and back.info == mine.info and back.loras.keys() == mine.loras.keys()
    for key, one in mine.loras.items():
        np.testing.assert_array_equal(back.loras[key].a, one.a)
        np.testing.assert_array_equal(back.loras[key].b, one.b)
        assert back.loras[key][2:] == one[2:]
    plain = banks.expert(bank, names, 1)
    assert plain.info == {}
    for key, one in mine.loras.items():
        assert lora.rank(plain.loras[key]) == lora.rank(one)
        np.testing.assert_allclose(lora.delta(plain.loras[key]), lora.delta(one), rtol=1e-5)


def test_only_adapted_layers_take_slots_in_rising_order():
    bank = banks.stack(mixed(), SHAPES, LAYERS)
    assert sorted(bank.sites) == ["layers/attn/q", "layers/mlp/up"]
    assert bank.sites["layers/attn/q"].slot.tolist() == [-1, 0, -1, 1]
    assert bank.sites["layers/mlp/up"].slot.tolist() == [-1, -1, -1, 0]
    assert bank.sites["layers/attn/q"].a.shape == (2, 2, 3, 6)
    assert bank.sites["layers/attn/q"].present.tolist() == [[True, True], [False, True]]
    assert banks.lowest(bank) == 1


def test_where_gives_slots_that_no_expert_uses_yet():
    bank = banks.stack(mixed(), SHAPES, LAYERS, where={"layers/mlp/down": [0, 2]})
    down = bank.sites["layers/mlp/down"]
    assert down.slot.tolist() == [0, -1, 1, -1] and not down.present.any() and banks.lowest(bank) == 0


def test_a_bank_of_nobody_has_rank_one():
    bank = banks.stack([], SHAPES, LAYERS, capacity=2, where={"layers/mlp/up": [1]})
    assert bank.sites["layers/mlp/up"].a.shape == (1, 2, 1, 6) and not bank.alive.any()


def test_an_expert_of_zeros_comes_out_of_a_bank_with_rank_one():
    bank = banks.stack([], SHAPES, LAYERS, capacity=1, rank=3, where={"layers/mlp/up": [1]})
    site = bank.sites["layers/mlp/up"]
    site = site._replace(present=np.ones_like(site.present), scale=np.ones_like(site.scale))
    (one,) = banks.expert(bank._replace(sites={"layers/mlp/up": site}), ["z"], 0).loras.values()
    assert one.a.shape == (1, 6) and one.b.shape == (1, 10)


def test_lowest_of_an_empty_bank_is_zero_and_the_embedding_counts_as_the_bottom():
    assert banks.lowest(banks.stack([], SHAPES, LAYERS)) == 0
    bank = banks.stack(mixed(), SHAPES | {"embed": (6, 4)}, LAYERS, where={"embed": [0]})
    assert banks.lowest(bank) == 0
    head = banks.stack(mixed(), SHAPES | {"head": (6, 4)}, LAYERS, where={"head": [0]})
    assert banks.lowest(head) == 1


def test_append_drop_and_take_change_values_not_shapes_and_compile_once():
    first, second = mixed()
    bank = banks.stack([first, second], SHAPES, LAYERS, capacity=4)
    banks.put.clear_cache()
    banks.drop.clear_cache()
    traces = []

    @jax.jit
    def use(bank, x):
        traces.append(1)
        return sum(jnp.sum(s.a) + jnp.sum(s.scale) for s in bank.sites.values()) + jnp.sum(bank.alive) + x

    shapes = jax.tree.map(jnp.shape, bank)
    states = [bank, banks.append(bank, second, 2), banks.append(bank, first, jnp.int32(3))]
    states += [banks.drop(states[1], 0), banks.drop(states[1], 1)]
    for state in states:
        banks.check(state)
        assert jax.tree.map(jnp.shape, state) == shapes
        use(state, 1.0)
    assert len(traces) == 1
    assert banks.put._cache_size() == 2  # a Python index is a weak type, an array is not
    assert banks.drop._cache_size() == 1
    assert states[1].alive.tolist() == [True, True, True, False]
    assert states[3].alive.tolist() == [False, True, True, False]


def test_append_gives_the_bank_that_stacking_would_have_given():
    first, second = mixed()
    grown = banks.append(banks.stack([second], SHAPES, LAYERS, capacity=2, rank=4, where=_where()), first, 1)
    whole = banks.stack([second, first], SHAPES, LAYERS, rank=4, where=_where())
    jax.tree.map(np.testing.assert_array_equal, grown, whole)


def test_drop_leaves_zeros_and_no_trace_of_the_expert():
    first, second = mixed()
    dropped = banks.drop(banks.stack([first, second], SHAPES, LAYERS), 0)
    assert dropped.alive.tolist() == [False, True]
    jax.tree.map(lambda leaf: _none(leaf[:, 0]), [stack[:4] for stack in dropped.sites.values()])
    np.testing.assert_allclose(
        dense(dropped, "layers/attn/q", 3, 1), lora.delta(second.loras["layers/attn/q", 3]), rtol=1e-5
    )


def test_put_works_inside_jit_with_a_traced_index():
    first, second = mixed()
    bank = banks.stack([second], SHAPES, LAYERS, capacity=3, where=_where())
    rows = banks.row(bank, first)
    inside = jax.jit(lambda bank, rows, i: banks.put(bank, rows, i + 1))(bank, rows, jnp.int32(1))
    jax.tree.map(np.testing.assert_array_equal, inside, banks.append(bank, first, 2))


def test_take_reorders_and_repeats():
    bank = banks.stack(mixed(), SHAPES, LAYERS, capacity=3)
    taken = banks.take(bank, [2, 1, 0, 1])
    banks.check(taken)
    assert taken.alive.tolist() == [False, True, True, True]
    for i, was in enumerate([2, 1, 0, 1]):
        np.testing.assert_array_equal(
            dense(taken, "layers/attn/q", 1, i), dense(bank, "layers/attn/q", 1, was)
        )


def _where():
    return {"layers/attn/q": [1, 3], "layers/mlp/up": [3]}


def _none(leaf):
    assert not np.asarray(leaf).any()


def _with(bank: Bank, path="layers/attn/q", **changed) -> Bank:
    return bank._replace(sites=bank.sites | {path: bank.sites[path]._replace(**changed)})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda b, q: _with(b, a=q.a[:, :, :2]), "shapes"),
        (lambda b, q: _with(b, scale=q.scale[:1]), "shapes"),
        (lambda b, q: b._replace(alive=b.alive[:1]), "holds 2 experts, but `alive` says 1"),
        (lambda b, q: _with(b, slot=q.slot.at[0].set(2)), "slots"),
        (lambda b, q: _with(b, slot=q.slot.at[0].set(0)), "slots"),
        (lambda b, q: _with(b, slot=q.slot.at[0].set(-2)), "slots"),
        (lambda b, q: _with(b, slot=q.slot.at[1].set(-1)), "slots"),
        (lambda b, q: _with(b, a=q.a.at[0, 1, 0, 0].set(jnp.nan)), "value in `a` that is not finite"),
        (lambda b, q: _with(b, b=q.b.at[0, 1, 0, 0].set(jnp.inf)), "value in `b` that is not finite"),
        (lambda b, q: _with(b, scale=q.scale.at[0, 0].set(jnp.nan)), "value in `scale` that is not finite"),
        (lambda b, q: _with(b, scale=q.scale.at[1, 0].set(1.0)), "absent expert"),
    ],
)
def test_check_names_what_is_wrong(change, says):
    bank = banks.stack(mixed(), SHAPES, LAYERS)
    banks.check(bank)
    with pytest.raises(UserError, match=says):
        banks.check(change(bank, bank.sites["layers/attn/q"]))


def test_what_does_not_fit_is_refused():
    first, second = mixed()
    with pytest.raises(UserError, match="capacity 1 is too small for 2"):
        banks.stack([first, second], SHAPES, LAYERS, capacity=1)
    with pytest.raises(UserError, match="rank 3, the bank holds 2"):
        banks.stack([first, second], SHAPES, LAYERS, rank=2)
    with pytest.raises(UserError, match="layer 3 of .*: the base has 3"):
        banks.stack([first], SHAPES, 3)
    with pytest.raises(UserError, match="no site 'layers/attn/q'"):
        banks.stack([first], {"layers/mlp/up": (6, 10)}, LAYERS)
    with pytest.raises(UserError, match="no slot for 'layers/mlp/up' at layer 3"):
        banks.append(banks.stack([second], SHAPES, LAYERS, capacity=2), first, 1)
    with pytest.raises(UserError, match=r"expected \[r, 6\] and \[r, 5\]"):
        banks.stack([first], SHAPES | {"layers/attn/q": (6, 5)}, LAYERS)
