"""An expert merged into its base: one file or shards, what came with the base, and what cannot be merged."""

import json

import jax
import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file, save_file

from moejax.experts import lora
from moejax.experts.checkpoint import INDEX, MODEL, MODEL_CONFIG
from moejax.experts.expert import Expert
from moejax.experts.lora import Lora
from moejax.experts.write_whole import write_whole
from moejax.models.weights import load, save
from moejax.types import UserError


@pytest.fixture(params=["encoder", "decoder"])
def base(request, tmp_path):
    save(tiny.base(request.param), tmp_path / "base")
    (tmp_path / "base" / "tokenizer.json").write_text("{}")
    (tmp_path / "base" / "notes.txt").write_text("mine")
    return load(tmp_path / "base")


def whole_of(base):
    assert base.homes.whole is not None
    return base.homes.whole


@pytest.mark.parametrize("shard", [2_000, 10**9])
def test_the_model_is_base_plus_delta(base, tmp_path, shard):
    expert = tiny.expert(base, "ann")
    names = write_whole(tmp_path / "out", expert, whole_of(base), tmp_path / "base", shard)
    assert (names == [MODEL]) == (shard > 10**6)
    sizes = [(tmp_path / "out" / name).stat().st_size for name in names]
    if len(names) > 1:
        where = json.loads((tmp_path / "out" / INDEX).read_text())["weight_map"]
        assert set(where.values()) == set(names) and len(names) > 3
        for name in names:
            held = load_file(tmp_path / "out" / name)
            assert held.keys() == {tensor for tensor, file in where.items() if file == name}
            assert len(held) == 1 or sum(value.nbytes for value in held.values()) <= shard
    assert all(sizes) and not (tmp_path / "out" / "notes.txt").exists()
    assert (tmp_path / "out" / "tokenizer.json").exists()
    after = load(tmp_path / "out").params
    for (path, layer), one in expert.loras.items():
        before, found = base.params, after
        for step in path.split("/"):
            before, found = before[step], found[step]
        np.testing.assert_allclose(
            found["kernel"][layer] - before["kernel"][layer], lora.delta(one), rtol=0, atol=1e-6
        )
    moved = [
        not np.array_equal(*pair)
        for pair in zip(jax.tree.leaves(base.params), jax.tree.leaves(after), strict=True)
    ]
    assert sum(moved) == len({path for path, _ in expert.loras})


def test_tensors_that_moejax_does_not_know_come_along(base, tmp_path):
    file = tmp_path / "base" / MODEL
    extra = {"pooler.dense.weight": np.ones((2, 2), np.float16), "count": np.arange(3)}
    save_file(load_file(file) | extra, file)
    write_whole(tmp_path / "out", tiny.expert(base, "ann"), whole_of(base), tmp_path / "base", 10**9)
    found = load_file(tmp_path / "out" / MODEL)
    assert found["pooler.dense.weight"].dtype == np.float32 and found["count"].tolist() == [0, 1, 2]


def test_a_base_without_a_folder_is_written_too(tmp_path):
    base = tiny.base("decoder")
    write_whole(tmp_path / "out", tiny.expert(base, "ann"), whole_of(base), None, 10**9, "bfloat16")
    assert json.loads((tmp_path / "out" / MODEL_CONFIG).read_text())["dtype"] == "bfloat16"
    again = load(tmp_path / "out")
    assert again.sites == base.sites and again.fingerprint != base.fingerprint


def test_biases_are_merged_where_the_base_has_them(tmp_path):
    base, path = tiny.base("encoder"), tiny.ON_TOP
    d, f = base.shapes[path]
    one = Lora(np.zeros((1, d), np.float32), np.zeros((1, f), np.float32), 2.0, bias=np.ones(f, np.float32))
    write_whole(tmp_path / "out", Expert("e", {}, {(path, 1): one}), whole_of(base), None, 10**9)
    after = load(tmp_path / "out").params["layers"]["mlp"]["down"]["bias"]
    np.testing.assert_allclose(
        after - base.params["layers"]["mlp"]["down"]["bias"], [[0] * f, [2] * f], atol=1e-6
    )
    other = tiny.base("decoder")
    d, f = other.shapes[path]
    one = Lora(np.ones((1, d), np.float32), np.ones((1, f), np.float32), 2.0, bias=np.ones(f, np.float32))
    with pytest.raises(
        UserError, match="the base has no bias there to merge the expert's into: keep the adapter"
    ):
        write_whole(tmp_path / "no", Expert("e", {}, {(path, 1): one}), whole_of(other), None, 10**9)
    assert not (tmp_path / "no").exists()


def test_what_does_not_fit_leaves_nothing(base, tmp_path):
    expert = tiny.expert(base, "ann")
    site = (tiny.EVERYWHERE, 0)
    nowhere = Expert("e", {}, {("layers/other", 0): expert.loras[site]})
    with pytest.raises(UserError, match="the base has no such site"):
        write_whole(tmp_path / "no", nowhere, whole_of(base), None, 10**9)
    large = Expert("e", {}, {site: expert.loras[site]._replace(alpha=1e9)})
    with pytest.raises(UserError, match="is beyond float16: write it as float32"):
        write_whole(tmp_path / "no", large, whole_of(base), None, 10**9, "float16")
    assert not (tmp_path / "no").exists()
