"""A whole model as an expert: it comes back from its folder, and every refusal names what is wrong and where."""

import json
import os
import pickle
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file, save_file

from moejax.commands import check
from moejax.commands.pool_listing import as_json, table
from moejax.experts import bank as banks
from moejax.experts.checkpoint import INDEX, MODEL, MODEL_CONFIG
from moejax.experts.content_hash import content_hash
from moejax.experts.expert import Expert
from moejax.experts.files import read, write
from moejax.experts.folder import INFO
from moejax.experts.member import OnBase, members
from moejax.experts.pool import pool_of, read_pool
from moejax.experts.pool_folder import add
from moejax.models import weights
from moejax.train.tree_file import flatten
from moejax.types import UserError

UP = "encoder.layer.1.intermediate.dense.weight"


@pytest.fixture(params=["encoder", "decoder"])
def base(request):
    return tiny.base(request.param)


@pytest.fixture
def encoder():
    return tiny.base("encoder")


def with_rest(base, name="mine"):
    """A full fine-tune with its embeddings."""
    rng = np.random.default_rng(7)
    shape = base.params["embed"]["embedding"].shape
    return tiny.delta(base, name)._replace(
        rest={"embed/embedding": rng.normal(size=shape).astype(np.float32)}, info={"task": "mine"}
    )


def written(base, folder, one=None):
    write(folder, one or with_rest(base), base.sites, fingerprint=base.fingerprint, homes=base.homes)
    return folder


def loaded(base, folder, **options):
    return read(folder, base.sites, base.shapes, base.fingerprint, homes=base.homes, **options)


def change(folder, edit, forget=True):
    tensors = load_file(folder / MODEL)
    save_file(edit(dict(tensors)) or tensors, folder / MODEL)
    if forget:
        (folder / INFO).write_text("{}")


def test_an_expert_comes_back_from_its_folder(base, tmp_path):
    one = with_rest(base)
    back, report = loaded(base, written(base, tmp_path / "mine", one))
    assert back.deltas.keys() == one.deltas.keys() and not back.loras and back.info["kind"] == "delta"
    for site, delta in one.deltas.items():
        for ours, theirs in zip(back.deltas[site], delta, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    np.testing.assert_allclose(back.rest["embed/embedding"], one.rest["embed/embedding"], rtol=0, atol=1e-6)
    assert content_hash(back.parts, back.rest) == back.info["hash"]
    size = np.sqrt(sum(np.sum(np.square(leaf)) for d in one.deltas.values() for leaf in d)
                   + np.sum(np.square(one.rest["embed/embedding"])))  # fmt: skip
    assert report.kind == "delta" and report.norm == pytest.approx(size, rel=1e-4)
    assert len(report.matched) == len(one.deltas) + 1


def test_the_folder_is_a_model_that_loads_as_a_base(base, tmp_path):
    one = with_rest(base)
    whole = weights.load(written(base, tmp_path / "mine", one))
    assert replace(whole.model.config, remat=False) == base.model.config
    expected = {path: np.array(leaf) for path, leaf in flatten(base.params).items()}
    expected["embed|embedding"] += one.rest["embed/embedding"]
    for (path, layer), delta in one.deltas.items():
        module = path.replace("/", "|")
        gain = f"{module}|kernel" if f"{module}|kernel" in expected else f"{module}|scale"
        expected[gain][layer] += delta.w.reshape(expected[gain].shape[1:])
        if f"{module}|bias" in expected:
            expected[f"{module}|bias"][layer] += delta.bias
    found = flatten(whole.params)
    assert found.keys() == expected.keys()
    for path, leaf in found.items():
        np.testing.assert_allclose(leaf, expected[path], rtol=0, atol=1e-6)


def test_shards_are_one_model(encoder, tmp_path):
    folder = written(encoder, tmp_path / "mine")
    before = loaded(encoder, folder)[0]
    tensors = load_file(folder / MODEL)
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, some in parts.items():
        save_file({name: tensors[name] for name in some}, folder / file)
    where = {name: file for file, some in parts.items() for name in some}
    (folder / INDEX).write_text(json.dumps({"weight_map": where}))
    os.unlink(folder / MODEL)
    assert content_hash(loaded(encoder, folder)[0].parts) == content_hash(before.parts)
    member = add(tmp_path / "pool", folder, "ann", OnBase(encoder.sites, encoder.shapes, encoder.fingerprint,
                                                          homes=encoder.homes))  # fmt: skip
    assert member.hash == before.info["hash"]
    assert set(parts) | {INDEX, MODEL_CONFIG, INFO} == {
        path.name for path in (tmp_path / "pool" / "ann").iterdir()
    }


def test_what_transformers_saved_needs_no_file_of_ours(encoder, tmp_path):
    folder = written(encoder, tmp_path / "mine")
    before = loaded(encoder, folder)[0]
    change(
        folder, lambda t: {"bert." + name: value for name, value in t.items()} | {"classifier.weight": t[UP]}
    )
    os.unlink(folder / INFO)
    back, report = loaded(encoder, folder)
    assert content_hash(back.parts, back.rest) == before.info["hash"]
    assert any("classifier.weight" in warning for warning in report.warnings)


def test_a_file_of_fewer_bits_differs_only_where_it_was_tuned(encoder, tmp_path):
    folder = written(encoder, tmp_path / "mine", tiny.delta(encoder, "mine", everywhere=False))
    change(folder, lambda t: {name: value.astype(ml_dtypes.bfloat16) for name, value in t.items()})
    assert set(loaded(encoder, folder)[0].deltas) == {(tiny.ON_TOP, 1)}


def no(name):
    return lambda t: {key: value for key, value in t.items() if key != name}


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (no(UP), f"hold no {UP}, which the base has"),
        (lambda t: t | {UP: t[UP][:5]}, r"is \[5, 16\], but the base makes it \[24, 16\]"),
        (lambda t: t | {UP: np.full_like(t[UP], np.nan)}, f"{UP} holds a NaN or an infinity"),
        (lambda t: t | {UP: t[UP].astype(np.int32)}, f"{UP} is of type I32"),
        (lambda t: weights.hf_tensors(tiny.base("encoder")), "no tensor differs from the base"),
    ],
)
def test_a_damaged_checkpoint_is_refused(encoder, tmp_path, edit, says):
    folder = written(encoder, tmp_path / "mine")
    change(folder, edit)
    with pytest.raises(UserError, match=says):
        loaded(encoder, folder)


def test_another_architecture_is_refused(encoder, tmp_path):
    folder = written(encoder, tmp_path / "mine")
    config = json.loads((folder / MODEL_CONFIG).read_text())
    for name, value in (("num_attention_heads", 4), ("hidden_act", "relu")):
        (folder / MODEL_CONFIG).write_text(json.dumps(config | {name: value}))
        with pytest.raises(UserError, match="config.json: another architecture than the base"):
            loaded(encoder, folder)


def test_changed_weights_another_base_and_pickles_are_refused(encoder, tmp_path):
    folder = written(encoder, tmp_path / "mine")
    change(folder, lambda t: t | {UP: t[UP] + 1}, forget=False)
    with pytest.raises(UserError, match="its content is not what moejax.json recorded as `hash`"):
        loaded(encoder, folder)
    with pytest.raises(UserError, match="trained on base .*, not on sha256:other"):
        read(folder, encoder.sites, encoder.shapes, "sha256:other", homes=encoder.homes)
    os.unlink(folder / MODEL)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(UserError, match="holds only pickled weights"):
        loaded(encoder, folder)


def test_what_cannot_be_written_is_refused(encoder, tmp_path):
    one = tiny.delta(encoder, "mine")
    site, delta = next(iter(one.deltas.items()))
    bad = [
        (one._replace(deltas={("layers/no", 0): delta}), "the base has no such site"),
        (one._replace(deltas={site: delta._replace(w=delta.w * np.nan)}), "expected .* finite numbers"),
        (one._replace(deltas={site: delta._replace(w=delta.w[:3])}), "expected .* finite numbers"),
        (
            one._replace(loras=tiny.expert(encoder, "mine").loras),
            "has LoRAs and differences: write an expert of each",
        ),
    ]
    for expert, says in bad:
        with pytest.raises(UserError, match=says):
            write(tmp_path / "mine", expert, encoder.sites, homes=encoder.homes)
    with pytest.raises(UserError, match="its base is needed"):
        write(tmp_path / "mine", one, encoder.sites)
    assert not (tmp_path / "mine").exists()


def test_a_base_of_fewer_bits_gives_the_same_differences(encoder, tmp_path):
    weights.save(encoder, tmp_path / "base")
    folder = written(encoder, tmp_path / "mine")
    small = weights.load(tmp_path / "base", dtype="bfloat16")
    assert loaded(small, folder)[0].info["hash"] == loaded(encoder, folder)[0].info["hash"]


def test_a_bank_of_differences_appends_drops_and_keeps_kinds_apart(encoder):
    pool = tiny.deltas(encoder, "ann", "bob", capacity=4)
    assert pool.kinds == {"delta"} and all(isinstance(s.w, np.ndarray) for s in pool.bank.sites.values())
    banks.check(banks.on_device(pool.bank))
    more = pool.append(with_rest(encoder, "dan"))
    assert more.rest.keys() == {"dan"} and more.take(["bob"]).rest == {} and more.lowest == 0
    site = ("layers/mlp/up", 1)
    for one in (pool.append(tiny.delta(encoder, "dan")), pool_of([tiny.delta(encoder, "dan")], encoder.sites,
                                                                encoder.shapes, encoder.layers)):  # fmt: skip
        back = banks.expert(one.bank, one.names, one.index("dan"))
        for ours, theirs in zip(back.deltas[site], tiny.delta(encoder, "dan").deltas[site], strict=True):
            np.testing.assert_array_equal(ours, theirs)
    gone = banks.drop(more.bank, 2)
    assert not np.asarray(gone.sites["layers/mlp/up"].w[:, 2]).any() and not gone.alive[2]
    with pytest.raises(UserError, match="of another kind than the bank's"):
        pool.append(tiny.expert(encoder, "dan"))
    odd = pool.bank.sites["layers/mlp/up"]
    wrong = pool.bank._replace(sites={"layers/mlp/up": odd._replace(bias=odd.bias[..., :2])})
    with pytest.raises(UserError, match=r"expected \[s, e, d, f\], \[s, e, f\]"):
        banks.check(wrong)


def test_commands_tell_its_kind_with_and_without_a_base(encoder, tmp_path, capsys):
    weights.save(encoder, tmp_path / "base")
    for name in ("ann", "bob"):
        written(encoder, tmp_path / "from" / name, replace_name(encoder, name))
    on_base = OnBase(encoder.sites, encoder.shapes, encoder.fingerprint, homes=encoder.homes)
    known = add(tmp_path / "pool", tmp_path / "from" / "ann", "ann", on_base)
    unknown = add(tmp_path / "pool", tmp_path / "from" / "bob", "bob")
    again = add(tmp_path / "pool", tmp_path / "from" / "ann", "eve")
    assert again.content == known.content != unknown.content and "ann" in again.twins
    said = table(members(tmp_path / "pool"))
    assert said.splitlines()[0].split()[:2] == ["name", "kind"] and said.count("delta") == 3
    assert as_json(unknown)["kind"] == "delta" and as_json(known)["ranks"] == []
    for folder, kind in ((tmp_path / "pool" / "ann", "expert"), (tmp_path / "pool", "experts")):
        assert check.kind_of(folder) == kind
        for base in (None, str(tmp_path / "base")):
            found = check.look(folder, base)
            assert not found.faults and any("delta, " in line for line in found.lines)
    assert check.kind_of(tmp_path / "base") == "base"


def replace_name(base, name):
    rest = {"embed/embedding": with_rest(base).rest["embed/embedding"] * (1 + len(name))}
    return Expert(name, {"task": name}, {}, deltas=tiny.delta(base, name).deltas, rest=rest)


def test_a_pool_is_read_with_what_stands_outside_the_layers(encoder, tmp_path):
    for name in ("ann", "bob"):
        written(encoder, tmp_path / "pool" / name, with_rest(encoder, name))
    pool, reports = read_pool(tmp_path / "pool", encoder.sites, encoder.shapes, encoder.layers,
                              encoder.fingerprint, homes=encoder.homes)  # fmt: skip
    assert pool.names == ("ann", "bob") and pool.rest.keys() == {"ann", "bob"} and len(reports) == 2
    assert replace(pool, rest={}).lowest == 0 and pool.kinds == {"delta"}
