"""Experts of a pool folder as they lie there: what is checked without a base, and how they compare."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from moejax.experts.content_hash import content_hash
from moejax.experts.files import write
from moejax.experts.folder import CONFIG, EXTRAS, INFO, PICKLE, SAMPLES, WEIGHTS, write_tensors
from moejax.experts.member import OnBase, compared, examine, members
from moejax.types import UserError


@pytest.fixture
def folder(tiny, tmp_path):
    write(tmp_path / "pool" / "ann", tiny.expert("ann", licence="MIT", description="greets"), tiny.sites)
    return tmp_path / "pool" / "ann"


def edit(path, **changed):
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def reweigh(folder, change):
    tensors = load_file(folder / WEIGHTS)
    save_file({key: change(key, value) for key, value in tensors.items()}, folder / WEIGHTS)


def poison(key, value):
    return value * np.nan if "lora_A" in key else value


def test_an_expert_is_described(tiny, folder):
    member = examine(folder, "any name")
    assert member.name == "any name" and member.ranks == (2, 3) and member.hash is None
    assert member.info["licence"] == "MIT" and member.info["description"] == "greets"
    assert member.size == sum(path.stat().st_size for path in folder.iterdir())
    assert member.report is not None
    assert len(member.report.matched) == 2 and member.report.norm > 0
    assert member.error is None and member.twins == ()


def test_a_base_adds_its_hash_and_its_refusals(tiny, folder):
    base = OnBase(tiny.sites, tiny.shapes, tiny.fingerprint)
    member = examine(folder, "ann", base)
    assert member.hash == content_hash(tiny.expert("ann").loras)
    assert member.content == examine(folder, "ann").content  # the same thing, with a base and without
    assert member.report is not None and member.report.warnings == ()
    edit(folder / INFO, base="sha256:other")
    with pytest.raises(UserError, match="trained on base sha256:other.*--allow-base-mismatch"):
        examine(folder, "ann", base)
    allowed = examine(folder, "ann", base._replace(allow_mismatch=True)).report
    assert allowed is not None and "sha256:other" in allowed.warnings[0]
    reweigh(folder, lambda key, value: value * 2)
    with pytest.raises(UserError, match="its content is not what moejax.json recorded as `hash`"):
        examine(folder, "ann", base._replace(allow_mismatch=True))


def test_a_recorded_hash_waits_for_a_base(folder):
    report = examine(folder, "ann").report
    assert report is not None and len(report.warnings) == 1
    assert report.warnings[0].endswith("recorded hash was not compared with its content, which needs --base")
    for wrong in ("sha256:12", 7, "modules:" + "0" * 64):
        edit(folder / INFO, hash=wrong)
        with pytest.raises(UserError, match=r"moejax\.json: hash is .*expected sha256: and 64"):
            examine(folder, "ann")
    edit(folder / INFO, hash=None)
    report = examine(folder, "ann").report
    assert report is not None and report.warnings == ()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda f: edit(f / CONFIG, peft_type="LOHA"), "peft_type is 'LOHA'"),
        (lambda f: edit(f / CONFIG, use_dora=True), "use_dora is set"),
        (lambda f: edit(f / CONFIG, r=5), "expected .5, any. with rank 5"),
        (lambda f: (f / CONFIG).unlink(), "adapter_config.json: no such file"),
        (lambda f: (f / WEIGHTS).rename(f / PICKLE), "adapter_model.bin: only a pickle"),
        (lambda f: (f / WEIGHTS).unlink(), "adapter_model.safetensors: no such file"),
        (lambda f: (f / WEIGHTS).write_bytes(b"half"), "truncated or not a safetensors file"),
        (lambda f: save_file({}, f / WEIGHTS), "holds no tensor"),
        (lambda f: save_file({"rogue": np.ones(2, np.float32)}, f / WEIGHTS), "unknown tensor 'rogue'"),
        (lambda f: reweigh(f, poison), "holds NaN or infinity"),
        (lambda f: reweigh(f, lambda k, v: v * ("lora_A" in k)), "every lora_B is zero"),
        (lambda f: edit(f / INFO, kind="delta"), "kind is 'delta'"),
        (lambda f: (f / EXTRAS).write_bytes(b"half"), "moejax_extras.safetensors: truncated"),
        (lambda f: write_tensors(f / EXTRAS, {"gate": np.full(2, np.nan)}), "'gate' holds NaN"),
        (
            lambda f: (f / SAMPLES).write_bytes(b'{"a": 1}\n{"b"'),
            "moejax_samples.jsonl, line 2: not valid JSON",
        ),
    ],
)
def test_all_that_can_be_known_without_a_base_is_checked(folder, spoil, says):
    spoil(folder)
    with pytest.raises(UserError, match=says):
        examine(folder, "ann")
    broken = members(folder.parent)
    assert [member.name for member in broken] == ["ann"] and broken[0].report is None
    assert broken[0].error is not None and broken[0].content is None


def test_experts_of_a_pool_are_compared(tiny, folder):
    pool = folder.parent
    write(pool / "bob", tiny.expert("bob", seed=1), tiny.sites)
    write(pool / "cy", tiny.expert("cy", description="the same weights as ann"), tiny.sites)
    write(pool / "dan", tiny.expert("dan", seed=2), tiny.sites)
    reweigh(pool / "dan", lambda key, value: value * 10)
    (pool / "broken").mkdir()
    (pool / ".hidden").mkdir()
    (pool / "file").write_text("no expert")
    found = {member.name: member for member in members(pool)}
    assert list(found) == ["ann", "bob", "broken", "cy", "dan"]
    assert found["ann"].twins == ("cy",) and found["cy"].twins == ("ann",)
    assert found["bob"].twins == found["dan"].twins == found["broken"].twins == ()
    assert found["broken"].error is not None and "adapter_config.json: no such file" in found["broken"].error
    cy, dan = found["cy"].report, found["dan"].report
    assert cy is not None and "experts 'ann' and 'cy' hold the same weights" in cy.warnings
    assert dan is not None and dan.median is not None and "times the pool's median norm" in dan.warnings[-1]


def test_nothing_compares_with_nothing():
    assert compared([]) == ()
