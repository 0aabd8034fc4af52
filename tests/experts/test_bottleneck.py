"""Bottleneck adapters: what one computes, and experts of both kinds in one bank."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moejax.experts import bank as banks
from moejax.experts import bottleneck, stacks
from moejax.experts.bottleneck import ACTS, Bottleneck
from moejax.experts.content_hash import content_hash
from moejax.experts.expert import Expert
from moejax.experts.stacks import Bottlenecks, Stack
from moejax.types import UserError

D, LAYERS = 8, 3
JOIN, ATTN = "layers/mlp_join", "layers/attn"


def adapter(rank=2, act="relu", scale=1.0, seed=0, d=D) -> Bottleneck:
    rng = np.random.default_rng(seed)
    leaves = (rng.normal(size=size).astype(np.float32) for size in ((rank, d), rank, (rank, d), d))
    return Bottleneck(*leaves, act, scale)


def mixed(tiny):
    """A LoRA expert, and two of bottleneck adapters of different ranks, layers and non-linearities."""
    first = {(JOIN, 1): adapter(3, "gelu", 2.0), (ATTN, 0): adapter(1, "tanh", seed=1)}
    return [
        tiny.expert("lora"),
        Expert("one", {}, {}, first),
        Expert("two", {}, {}, {(JOIN, 2): adapter(2, seed=2)}),
    ]


def test_the_hand_example():
    one = Bottleneck(
        np.float32([[1, 2], [1, 0]]), np.float32([0.5, -3]), np.float32([[1, 0], [5, 5]]), np.float32([0, 0.25]),
        "relu", 2.0,
    )  # fmt: skip
    np.testing.assert_array_equal(
        bottleneck.apply(one, np.float32([1, 1])), [7.0, 0.5]
    )  # 2 * (3.5 + 0, 0 + 0.25)
    tanh = bottleneck.apply(one._replace(act="tanh"), np.float32([1, 1]))
    np.testing.assert_allclose(
        tanh, 2 * np.array([np.tanh(3.5) + 5 * np.tanh(-2), 5 * np.tanh(-2) + 0.25]), rtol=1e-6
    )
    assert bottleneck.norm(one) == pytest.approx(2 * np.linalg.norm(one.a.T @ one.b), rel=1e-6)


def test_each_expert_has_its_own_non_linearity():
    z = jnp.asarray(np.random.default_rng(0).normal(size=(4, len(ACTS), 5)), jnp.float32)
    act = jnp.broadcast_to(jnp.arange(len(ACTS)), (4, len(ACTS)))
    found = bottleneck.activate(z, act)
    for i, function in enumerate(ACTS.values()):
        np.testing.assert_allclose(found[:, i], function(z[:, i]), rtol=0, atol=1e-6)
    known = {"relu": 0.0, "gelu": -0.158655, "gelu_new": -0.158808, "swish": -0.268941, "tanh": -0.761594,
             "leakyrelu": -0.01}  # fmt: skip
    for i, name in enumerate(ACTS):
        assert float(bottleneck.activate(jnp.float32([-1.0]), jnp.int32(i))[0]) == pytest.approx(
            known[name], abs=1e-6
        )


def test_a_fresh_adapter_is_small_and_drawn_by_its_key():
    one, other = (bottleneck.init(jax.random.key(k), 256, 64, "swish") for k in (0, 1))
    assert one.act == "swish" and not one.a_bias.any() and not one.b_bias.any()
    np.testing.assert_allclose([one.a.std(), one.b.std()], 0.02, rtol=0.03)
    assert len({leaf.tobytes() for leaf in (one.a, one.b, other.a, other.b)}) == 4


def test_both_kinds_stand_in_one_bank_and_come_back(tiny):
    experts = mixed(tiny)
    bank = banks.stack(experts, tiny.shapes, LAYERS, capacity=4)
    banks.check(bank)
    assert {path: type(s) for path, s in bank.sites.items()} == {
        "layers/attn/q": Stack, "layers/mlp/up": Stack, JOIN: Bottlenecks, ATTN: Bottlenecks,
    }  # fmt: skip
    assert np.asarray(bank.sites[JOIN].slot).tolist() == [-1, 0, 1]
    assert np.asarray(bank.sites[JOIN].present).tolist() == [
        [False, True, False, False],
        [False, False, True, False],
    ]
    for e, expert in enumerate(experts):
        back = banks.expert(bank, ("lora", "one", "two"), e, like=expert)
        assert back.parts.keys() == expert.parts.keys()
        assert content_hash(back.parts) == content_hash(expert.parts)
        if expert.bottlenecks:  # with no word of how it was
            assert content_hash(banks.expert(bank, ("lora", "one", "two"), e).parts) == content_hash(
                expert.parts
            )


def test_append_and_drop_are_of_every_kind(tiny):
    lora, one, two = mixed(tiny)
    where = {"layers/attn/q": [1], "layers/mlp/up": [2]}
    whole = banks.stack([two, one], tiny.shapes, LAYERS, rank=3)
    grown = banks.append(banks.stack([two, one], tiny.shapes, LAYERS, rank=3), one, 1)
    jax.tree.map(np.testing.assert_array_equal, grown, whole)
    both = banks.append(
        banks.stack([two, one], tiny.shapes, LAYERS, capacity=3, rank=3, where=where), lora, 2
    )
    jax.tree.map(
        np.testing.assert_array_equal,
        banks.take(both, [2, 1, 0]),
        banks.stack([lora, one, two], tiny.shapes, LAYERS),
    )
    dropped = banks.drop(both, 1)
    banks.check(dropped)
    assert dropped.alive.tolist() == [True, False, True]
    for stack in dropped.sites.values():
        assert not any(np.asarray(leaf[:, 1]).any() for leaf in stacks.leaves(stack).values())


def test_what_does_not_fit_is_refused(tiny):
    _, one, _ = mixed(tiny)
    wide = Expert("wide", {}, {}, {(JOIN, 1): adapter(d=6)})
    with pytest.raises(
        UserError, match=r"'wide' at 'layers/mlp_join', layer 1 has factors .*: expected \[r, 8\]"
    ):
        banks.stack([wide, one], tiny.shapes, LAYERS)
    with pytest.raises(UserError, match="rank 3, the bank holds 2"):
        banks.stack([one], tiny.shapes, LAYERS, rank=2)
    with pytest.raises(UserError, match="layer 3 of 'layers/attn': the base has 3"):
        banks.stack([Expert("high", {}, {}, {(ATTN, 3): adapter()})], tiny.shapes, LAYERS)
    bank = banks.stack([one], tiny.shapes, LAYERS)
    bad = bank.sites[JOIN]._replace(b_bias=bank.sites[JOIN].b_bias.at[0, 0, 0].set(np.nan))
    with pytest.raises(UserError, match="'layers/mlp_join' has a value in `b_bias` that is not finite"):
        banks.check(bank._replace(sites=bank.sites | {JOIN: bad}))


def test_every_part_of_an_adapter_is_in_its_hash():
    one = adapter()
    others = [
        one._replace(**{name: getattr(one, name) + 1}) for name in ("a", "a_bias", "b", "b_bias", "scale")
    ]
    others += [one._replace(act="tanh"), one]
    hashes = [content_hash({(JOIN, 1): other}) for other in others] + [content_hash({(JOIN, 2): one})]
    hashes += [content_hash({(ATTN, 1): one})]
    assert len(set(hashes)) == len(hashes)
