"""LoRAs with a bias (`lora_bias`): delta(x) = s (B A x + bias), in files, in the bank, and in every mix."""

import json
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from stand_in import here, request

from moejax.aggregation import formulations
from moejax.experts import bank as banks
from moejax.experts import lora, merge
from moejax.experts.content_hash import content_hash
from moejax.experts.expert import Expert
from moejax.experts.files import read, write
from moejax.experts.folder import CONFIG
from moejax.experts.lora import Lora
from moejax.methods import adapterfusion, mole
from moejax.site import Inside
from moejax.types import UserError, Weights

PATH, D, F = "layers/mlp/up", 8, 12
RNG = np.random.default_rng(0)


def drawn(r, biased=True, alpha=3.0, rslora=False):
    a, b, bias = (RNG.normal(size=size).astype(np.float32) for size in ((r, D), (r, F), F))
    return Lora(a, b, alpha, rslora, bias if biased else None)


LORAS = [drawn(2), drawn(3, biased=False), drawn(1, alpha=5.0, rslora=True)]
EXPERTS = [Expert(f"e{i}", {}, {(PATH, 1): one}) for i, one in enumerate(LORAS)]
BANK = banks.stack(EXPERTS, {PATH: (D, F)}, 3)
X = RNG.normal(size=(2, 5, D)).astype(np.float32)


def added(one, x, times=1.0):
    """What a LoRA adds, by its definition."""
    bias = 0 if one.bias is None else one.bias
    return times * lora.scale(one) * ((x @ one.a.T) @ one.b + bias)


def test_a_bank_has_room_for_biases_only_where_there_are_any():
    assert BANK.sites[PATH].bias.shape == (1, 3, F)
    assert banks.stack(EXPERTS[1:2], {PATH: (D, F)}, 3).sites[PATH].bias is None
    banks.check(BANK)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 5, 3)])
def test_outputs_mix_with_their_biases(shape):
    w = RNG.normal(size=shape).astype(np.float32)
    each = w.reshape((1,) * (3 - w.ndim) + shape) if w.ndim != 2 else w[:, None]
    expected = sum(each[..., e, None] * added(one, X) for e, one in enumerate(LORAS))
    found = formulations.output(jnp.asarray(X), BANK.sites[PATH], jnp.int32(0), Weights(jnp.asarray(w), None))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=2e-5)


@pytest.mark.parametrize("shape", [(2,), (2, 2), (2, 5, 2)])
def test_the_chosen_bring_their_own_biases(shape):
    w, index = RNG.normal(size=shape).astype(np.float32), np.resize([2, 0, 1, 2], shape).astype(np.int32)
    found = formulations.output(
        jnp.asarray(X), BANK.sites[PATH], jnp.int32(0), Weights(jnp.asarray(w), jnp.asarray(index))
    )
    lead = {1: (1, 1), 2: (2, 1), 3: (2, 5)}[len(shape)]
    w, index = (np.broadcast_to(leaf.reshape(*lead, 2), (2, 5, 2)) for leaf in (w, index))
    expected = np.zeros((2, 5, F))
    for b, t, k in np.ndindex(2, 5, 2):
        expected[b, t] += added(LORAS[index[b, t, k]], X[b, t], w[b, t, k])
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=2e-5)


def test_factors_mix_apart_and_biases_once():
    w = np.float32([0.5, -1.0, 2.0])
    a = sum(w_e * np.pad(one.a, ((0, 3 - len(one.a)), (0, 0))) for w_e, one in zip(w, LORAS, strict=True))
    b = sum(
        w_e * lora.scale(one) * np.pad(one.b, ((0, 3 - len(one.b)), (0, 0)))
        for w_e, one in zip(w, LORAS, strict=True)
    )
    bias = sum(
        w_e * lora.scale(one) * one.bias for w_e, one in zip(w, LORAS, strict=True) if one.bias is not None
    )
    found = formulations.factor(jnp.asarray(X), BANK.sites[PATH], jnp.int32(0), Weights(jnp.asarray(w), None))
    np.testing.assert_allclose(found, X @ a.T @ b + bias, rtol=1e-6, atol=2e-5)


@pytest.mark.parametrize("mode", ["output", "factor"])
def test_a_merge_has_the_biases_of_its_mode(mode):
    w = np.float32([0.5, -1.0, 2.0])
    one = merge.merged(BANK, w, mode, "one").loras[PATH, 1]
    mix = getattr(formulations, mode)
    expected = mix(jnp.asarray(X), BANK.sites[PATH], jnp.int32(0), Weights(jnp.asarray(w), None))
    np.testing.assert_allclose(added(one, X), expected, rtol=1e-6, atol=2e-5)


def test_a_merge_whose_factors_cancel_keeps_its_bias():
    twin = LORAS[0]._replace(bias=2 * LORAS[0].bias)
    pair = [Expert("a", {}, {(PATH, 1): LORAS[0]}), Expert("b", {}, {(PATH, 1): twin})]
    bank = banks.stack(pair, {PATH: (D, F)}, 3)
    one = merge.merged(bank, np.float32([-1, 1]), "factor", "one").loras[PATH, 1]
    assert not one.a.any() and not one.b.any() and len(one.a) == 1
    np.testing.assert_allclose(one.bias, lora.scale(LORAS[0]) * LORAS[0].bias, rtol=1e-6)


def test_merge_and_compress_of_loras_keep_the_bias():
    w = [0.5, -1.0, 2.0]
    whole = lora.merge(LORAS, w)
    expected = sum(added(one, X, w_e) for w_e, one in zip(w, LORAS, strict=True))
    np.testing.assert_allclose(added(whole, X), expected, rtol=1e-6, atol=2e-5)
    small, error = lora.compress(whole, 6)
    assert error < 1e-6
    np.testing.assert_allclose(added(small, X), expected, rtol=1e-6, atol=2e-5)


def test_an_expert_comes_back_from_the_bank_with_its_bias():
    for e, expert in enumerate(EXPERTS):
        back = banks.expert(BANK, ["e0", "e1", "e2"], e, like=expert)
        assert content_hash(back.parts) == content_hash(expert.parts)
        assert (banks.expert(BANK, ["e0", "e1", "e2"], e).loras[PATH, 1].bias is None) == (e == 1)


def test_a_bank_without_room_says_so():
    plain = banks.stack(EXPERTS[1:2], {PATH: (D, F)}, 3, capacity=2, rank=3)
    with pytest.raises(UserError, match="has a bias, for which the bank has no room: stack the pool anew"):
        banks.append(plain, EXPERTS[0], 1)
    roomy = banks.stack(EXPERTS[:1], {PATH: (D, F)}, 3, capacity=2, rank=3)
    assert banks.append(roomy, EXPERTS[2], 1).sites[PATH].bias[0, 1].tolist() == LORAS[2].bias.tolist()
    dropped = banks.drop(roomy, 0)
    assert not dropped.sites[PATH].bias.any()


def test_the_bias_is_in_hash_and_norm():
    one = LORAS[0]
    hashes = {
        content_hash({(PATH, 1): o}) for o in (one, one._replace(bias=None), one._replace(bias=one.bias + 1))
    }
    assert len(hashes) == 3
    assert lora.norm(one) == pytest.approx(
        np.hypot(np.linalg.norm(lora.delta(one)), lora.scale(one) * np.linalg.norm(one.bias)), rel=1e-5
    )


def test_files_have_a_bias_for_each_or_none(tiny, tmp_path):
    expert = tiny.expert("mine", {("layers/attn/q", 1): (2, 4.0, False), (PATH, 2): (3, 6.0, False)})
    site = (PATH, 2)
    biased = expert._replace(
        loras=expert.loras | {site: expert.loras[site]._replace(bias=RNG.normal(size=F).astype(np.float32))}
    )
    write(tmp_path / "mine", biased, tiny.sites)
    assert json.loads((tmp_path / "mine" / CONFIG).read_text())["lora_bias"] is True
    back, _ = read(tmp_path / "mine", tiny.sites, tiny.shapes, None)
    assert back.loras[site].bias.tolist() == biased.loras[site].bias.tolist()
    assert not back.loras["layers/attn/q", 1].bias.any()
    write(tmp_path / "plain", expert, tiny.sites)
    assert "lora_bias" not in json.loads((tmp_path / "plain" / CONFIG).read_text())
    with pytest.raises(UserError, match="factors must be finite"):
        write(
            tmp_path / "bad",
            biased._replace(loras={site: biased.loras[site]._replace(bias=np.full(F, np.nan))}),
            tiny.sites,
        )


def test_a_missing_or_misshapen_bias_is_refused(tiny, tmp_path):
    from safetensors.numpy import load_file, save_file

    from moejax.experts.folder import INFO, WEIGHTS

    one = tiny.expert("mine", {(PATH, 2): (3, 6.0, False)})
    write(
        tmp_path / "mine",
        one._replace(loras={(PATH, 2): one.loras[PATH, 2]._replace(bias=np.ones(F, np.float32))}),
        tiny.sites,
    )
    (tmp_path / "mine" / INFO).unlink()
    tensors, key = (
        load_file(tmp_path / "mine" / WEIGHTS),
        "base_model.model.encoder.layer.2.intermediate.dense.lora_B.bias",
    )
    for value, says in (
        (None, "is missing, its partner"),
        (np.ones(F - 1, np.float32), r"has shape \[11\]: expected \[12\]"),
    ):
        some = {k: v for k, v in tensors.items() if k != key} | ({} if value is None else {key: value})
        save_file(some, tmp_path / "mine" / WEIGHTS)
        with pytest.raises(UserError, match=says):
            read(tmp_path / "mine", tiny.sites, tiny.shapes, None)
    no_factors = {k: v * ("bias" in k) for k, v in tensors.items()}
    save_file(no_factors, tmp_path / "mine" / WEIGHTS)
    assert (
        read(tmp_path / "mine", tiny.sites, tiny.shapes, None)[0].loras[PATH, 2].bias.all()
    )  # it does something


def at_site():
    """Where the experts of the bank stand, a linear of its own."""
    return replace(
        here(PATH, [True] * 3, {}, request(2, 5)),
        bank=banks.take(BANK, [0, 1, 2]),
        inside=Inside(jnp.int32(1)),
    )


def test_adapterfusion_sees_the_biases():
    found = adapterfusion.of_loras(jnp.asarray(X), at_site())
    given = np.einsum("bter,erf->btef", found.z, found.up) + np.asarray(found.bias)
    expected = np.stack([added(one, X) for one in LORAS], axis=2)
    np.testing.assert_allclose(given, expected, rtol=1e-6, atol=2e-5)


SHOWN = []


class Seen(mole.Gate):
    """A gate that keeps what it is shown."""

    def __call__(self, site, outputs):
        SHOWN.append(outputs)
        return jnp.zeros((2, 3))


def test_mole_scores_the_updates_with_their_biases():
    mole.Updates(Seen("request", "none"))(at_site(), jnp.asarray(X))
    expected = np.stack([added(one, X) for one in LORAS], axis=1)
    np.testing.assert_allclose(SHOWN[0], expected, rtol=1e-6, atol=2e-5)
