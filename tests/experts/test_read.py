"""`read_modules`: a folder as it is, with a base's shapes or without; `tests/experts/test_files.py` has `read`."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from moejax.experts.content_hash import modules_hash
from moejax.experts.files import read, write
from moejax.experts.folder import CONFIG, WEIGHTS
from moejax.experts.read import own_name, read_modules
from moejax.types import UserError

Q = "encoder.layer.1.attention.self.query"
QA, QB = (f"base_model.model.{Q}.lora_{factor}.weight" for factor in "AB")


@pytest.fixture
def folder(tiny, tmp_path):
    write(tmp_path / "mine", tiny.expert("mine"), tiny.sites)
    return tmp_path / "mine"


def retensor(folder, **changed):
    tensors = load_file(folder / WEIGHTS) | changed
    save_file({key: value for key, value in tensors.items() if value is not None}, folder / WEIGHTS)


def test_without_a_base_the_file_says_what_there_is(tiny, folder):
    info, loras, report, *_ = read_modules(folder)
    expert, whole = read(folder, tiny.sites, tiny.shapes, tiny.fingerprint)
    assert {tiny.sites[module] for module in loras} == expert.loras.keys()
    for module, one in loras.items():
        np.testing.assert_array_equal(one.a, expert.loras[tiny.sites[module]].a)
        np.testing.assert_array_equal(one.b, expert.loras[tiny.sites[module]].b)
    assert report == whole._replace(hash="", verified=False) and info["task"] == "mine"
    assert whole.verified and whole.hash == expert.info["hash"]


def test_only_a_base_knows_what_is_unmatched(tiny, folder):
    config = json.loads((folder / CONFIG).read_text()) | {"target_modules": ["query", "intermediate.dense"]}
    (folder / CONFIG).write_text(json.dumps(config))
    assert read_modules(folder).report.unmatched == ()
    shapes = {module: tiny.shapes[path] for module, (path, _) in tiny.sites.items()}
    assert len(read_modules(folder, shapes).report.unmatched) == 4


def test_without_a_base_any_module_and_any_width_will_do(folder):
    config = json.loads((folder / CONFIG).read_text()) | {"target_modules": "all-linear"}
    (folder / CONFIG).write_text(json.dumps(config))
    other = {
        key.replace(Q, "some.other.base"): np.ones(shape, np.float32)
        for key, shape in ((QA, (2, 31)), (QB, (7, 2)))
    }
    retensor(folder, **other)
    loras = read_modules(folder).parts
    assert loras["some.other.base"].a.shape == (2, 31) and loras["some.other.base"].b.shape == (2, 7)


@pytest.mark.parametrize(
    ("key", "shape", "says"),
    [
        (QA, (8, 2), r"has shape \[8, 2\]: expected \[2, any\] with rank 2"),
        (QB, (2, 8), r"has shape \[2, 8\]: expected \[any, 2\] with rank 2"),
        (QA, (3, 8), r"has shape \[3, 8\]: expected \[2, any\]"),
        (QA, (16,), r"has shape \[16\]: expected \[2, any\]"),
        (QA, (2, 2, 4), r"has shape \[2, 2, 4\]: expected \[2, any\]"),
        (QA, (), r"has shape \[\]: expected \[2, any\]"),
        (QA, None, "is missing, its partner is there"),
        (QB, None, "is missing, its partner is there"),
    ],
)
def test_without_a_base_shapes_must_agree_with_the_rank(folder, key, shape, says):
    retensor(folder, **{key: None if shape is None else np.ones(shape, np.float32)})
    with pytest.raises(UserError, match=says) as refusal:
        read_modules(folder)
    assert repr(key) in str(refusal.value) and str(folder / WEIGHTS) in str(refusal.value)


def test_a_tensor_that_names_no_module_is_unknown(folder):
    config = json.loads((folder / CONFIG).read_text()) | {"target_modules": "all-linear"}
    (folder / CONFIG).write_text(json.dumps(config))
    retensor(folder, **{"base_model.model.lora_A.weight": np.ones((2, 8), np.float32)})
    with pytest.raises(
        UserError, match=r"unknown tensor 'base_model.model.lora_A.weight'.*a kind of LoRA that is not"
    ):
        read_modules(folder)


def test_a_name_may_be_given(tiny, folder):
    odd = folder.rename(folder.parent / "step:12")
    assert read_modules(odd, name="mine").report.name == "mine"
    assert read(odd, tiny.sites, tiny.shapes, tiny.fingerprint, name="mine")[0].name == "mine"
    with pytest.raises(UserError, match="'step:12' cannot name an expert"):
        read_modules(odd)
    with pytest.raises(UserError, match="'a/b' cannot name an expert"):
        read_modules(odd, name="a/b")


def test_a_folder_has_a_name_wherever_one_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert own_name(type(tmp_path)(".")) == tmp_path.name and own_name(tmp_path / "a") == "a"


def test_the_hash_of_modules_is_of_the_content_alone(folder):
    loras = read_modules(folder).parts
    digest = modules_hash(loras)
    assert digest.startswith("modules:") and len(digest) == 72
    assert modules_hash(dict(reversed(loras.items()))) == digest
    retensor(folder, **{key: value.astype(np.float64) for key, value in load_file(folder / WEIGHTS).items()})
    assert modules_hash(read_modules(folder).parts) == digest
    one = loras[Q]
    others = (
        loras | {Q: one._replace(a=one.a + 1)},
        loras | {Q: one._replace(b=one.b + 1)},
        loras | {Q: one._replace(alpha=one.alpha + 1)},
        loras | {Q: one._replace(rslora=True)},
        {f"{module}x": lora for module, lora in loras.items()},
    )
    assert len({digest, *map(modules_hash, others)}) == 6
