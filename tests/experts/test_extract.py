"""A LoRA out of a full fine-tune, and an expert made smaller: planted ranks are found, errors are the true ones."""

from dataclasses import replace

import jax
import numpy as np
import pytest
import tiny

from moejax.experts import lora
from moejax.experts.compress import compress
from moejax.experts.extract import extract
from moejax.experts.lora import Lora, kept
from moejax.models.weights import save
from moejax.types import UserError

UP = "layers/mlp/up"


def tuned(base, folder, changes):
    """The base with parameters changed, as a folder; changes: path of a leaf -> what is added."""
    params = jax.tree.map(np.asarray, base.params)
    for path, change in changes.items():
        *way, last = path.split("/")
        node = params
        for step in way:
            node = node[step]
        node[last] = node[last] + change
    save(replace(base, params=params), folder)
    return folder


def planted(base, path, r, seed=0):
    """A difference of rank r in the upper layer, with singular values far apart."""
    rng = np.random.default_rng(seed)
    (d, f), (q, _), (p, _) = (
        base.shapes[path],
        *(np.linalg.qr(rng.normal(size=(n, r))) for n in base.shapes[path]),
    )
    change = np.zeros((base.layers, d, f), np.float32)
    change[1] = q * 2.0 ** np.arange(r, 0, -1) @ p.T
    return change


def run(base, folder, **options):
    return extract(folder, base.homes.whole, set(base.sites.values()), "mine", **options)


def test_a_planted_rank_is_found(tmp_path):
    base = tiny.base("decoder")
    change = planted(base, UP, 3)
    found = run(base, tuned(base, tmp_path / "t", {f"{UP}/kernel": change}), energy=0.9999)
    assert found.expert.loras.keys() == {(UP, 1)} and found.others == () and found.left == 0
    one = found.expert.loras[UP, 1]
    assert len(one.a) == 3 and lora.scale(one) == 1 and found.error < 1e-5
    np.testing.assert_allclose(lora.delta(one), change[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "r"),
    [
        ({"rank": 1}, 1),
        ({"rank": 2}, 2),
        ({"energy": 0.9}, 2),
        ({"energy": 0.7}, 1),
        ({"energy": 0.99999, "rank": 2}, 2),
    ],
)
def test_rank_by_number_or_by_energy_and_its_error(tmp_path, options, r):
    """Singular values 8, 4, 2: squares 64, 16, 4, shares .762, .952, 1."""
    base = tiny.base("decoder")
    found = run(base, tuned(base, tmp_path / "t", {f"{UP}/kernel": planted(base, UP, 3)}), **options)
    assert len(found.expert.loras[UP, 1].a) == r
    expected = np.sqrt(sum([64, 16, 4][r:]) / 84)
    assert found.error == pytest.approx(expected, rel=1e-4) and found.worst == (
        (UP, 1),
        pytest.approx(expected, rel=1e-4),
    )


def test_biases_come_with_it_or_are_told(tmp_path):
    base = tiny.base("encoder")
    bias, f = np.zeros((2, base.shapes[UP][1]), np.float32), base.shapes[UP][1]
    bias[0] = 3.0
    changes = {
        f"{UP}/kernel": planted(base, UP, 2),
        f"{UP}/bias": bias,
        "embed_norm/scale": np.full(16, 0.5, np.float32),
    }
    folder = tuned(base, tmp_path / "t", changes)
    found = run(base, folder, energy=0.9999)
    assert found.expert.loras.keys() == {(UP, 0), (UP, 1)} and found.others == (
        "embeddings.LayerNorm.weight",
    )
    np.testing.assert_allclose(found.expert.loras[UP, 0].bias, bias[0], atol=1e-5)
    assert not lora.delta(found.expert.loras[UP, 0]).any() and found.expert.loras[UP, 1].bias is None
    sizes = {"kernel": 20.0, "bias": 9.0 * f, "norm": 16 * 0.25}
    assert found.left == pytest.approx(np.sqrt(sizes["norm"] / sum(sizes.values())), rel=1e-4)
    without = run(base, folder, energy=0.9999, biases=False)
    assert without.expert.loras.keys() == {(UP, 1)}
    assert without.others == ("embeddings.LayerNorm.weight", "encoder.layer.0.intermediate.dense.bias")
    assert without.left == pytest.approx(
        np.sqrt((sizes["norm"] + sizes["bias"]) / sum(sizes.values())), rel=1e-4
    )


def test_what_holds_no_lora_is_refused(tmp_path):
    base = tiny.base("encoder")
    folder = tuned(base, tmp_path / "t", {"embed_norm/scale": np.ones(16, np.float32)})
    with pytest.raises(UserError, match="no linear differs from the base: there is no LoRA in it"):
        run(base, folder, rank=2)


def test_an_expert_made_smaller_states_its_error():
    base = tiny.base("decoder")
    expert = tiny.expert(base, "ann", rank=4)
    found = compress(expert, rank=2)
    deltas = [(lora.delta(one), lora.delta(found.expert.loras[site])) for site, one in expert.loras.items()]
    lost = np.sqrt(sum(np.sum((one - other) ** 2) for one, other in deltas))
    assert found.error == pytest.approx(lost / np.sqrt(sum(np.sum(one**2) for one, _ in deltas)), rel=1e-4)
    each = [np.linalg.norm(one - other) / np.linalg.norm(one) for one, other in deltas]
    assert (
        found.worst[1] == pytest.approx(max(each), rel=1e-4)
        and found.worst[0] == list(expert.loras)[int(np.argmax(each))]
    )
    assert compress(expert, energy=1.0).error < 1e-6


def test_how_many_are_kept():
    values = np.array([8.0, 4.0, 2.0])
    assert [kept(values, None, share) for share in (0.5, 0.762, 0.9, 0.96, 1.0)] == [1, 2, 2, 3, 3]
    assert kept(values, 2, 1.0) == 2 and kept(values, 9, 0.96) == 3 and kept(np.zeros(3), None, 1.0) == 1
    nothing, error = lora.compress(Lora(np.zeros((2, 4)), np.zeros((2, 3)), 2.0), energy=0.9)
    assert len(nothing.a) == 1 and error == 0
