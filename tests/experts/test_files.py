"""A contributor's folder: round trips, the content hash, the load report, and every refusal."""

import json
import os
import warnings

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from moejax.experts import lora
from moejax.experts.content_hash import content_hash
from moejax.experts.files import read, write
from moejax.experts.folder import CONFIG, INFO, PICKLE, WEIGHTS, check_name, check_names
from moejax.experts.report import compare, line
from moejax.types import UserError

Q1 = "base_model.model.encoder.layer.1.attention.self.query.lora_"
UP2 = "base_model.model.encoder.layer.2.intermediate.dense.lora_"


@pytest.fixture
def folder(tiny, tmp_path):
    write(tmp_path / "mine", tiny.expert("mine"), tiny.sites, base_name="org/base", task_type="CAUSAL_LM")
    return tmp_path / "mine"


def loaded(tiny, folder, **options):
    return read(folder, tiny.sites, tiny.shapes, tiny.fingerprint, **options)


def edit(path, change):
    """Change a JSON file in place; `change` gets the object."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def retensor(folder, change, forget_hash=True):
    """Change the weights in place; `change` gets the dict of tensors."""
    tensors = load_file(folder / WEIGHTS)
    save_file(change(dict(tensors)) or tensors, folder / WEIGHTS)
    if forget_hash:
        edit(folder / INFO, lambda info: info.pop("hash"))


numbers = st.floats(0.125, 64, width=32)
sites_drawn = st.dictionaries(
    st.tuples(st.sampled_from(["layers/attn/q", "layers/mlp/up", "layers/mlp/down"]), st.integers(0, 2)),
    st.tuples(st.integers(1, 4), numbers, st.booleans()),
    min_size=1,
    max_size=6,
)


@given(sites_drawn, st.integers(0, 99))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_expert_comes_back_from_its_folder(tiny, tmp_path, sites, seed):
    expert = tiny.expert("mine", sites, seed)
    write(tmp_path / "mine", expert, tiny.sites)
    back, report = loaded(tiny, tmp_path / "mine")
    assert back.name == "mine" and back.loras.keys() == expert.loras.keys()
    for site, one in expert.loras.items():
        np.testing.assert_array_equal(back.loras[site].a, one.a)
        np.testing.assert_array_equal(back.loras[site].b, one.b)
        assert lora.scale(back.loras[site]) == pytest.approx(lora.scale(one), rel=1e-12)
    if len({rslora for *_, rslora in sites.values()}) == 1:
        assert all(back.loras[site][2:] == one[2:] for site, one in expert.loras.items())
        assert back.info["hash"] == content_hash(expert.loras)
    assert report.unmatched == report.zero == report.warnings == ()
    assert {tiny.sites[module] for module in report.matched} == expert.loras.keys()


def test_what_is_written_says_what_it_is(folder, tiny):
    info, config = json.loads((folder / INFO).read_text()), json.loads((folder / CONFIG).read_text())
    assert info["kind"] == "lora" and info["task"] == "mine" and info["base"] == tiny.fingerprint
    assert {"description", "licence", "provenance", "price", "init", "hash", "scores"} <= info.keys()
    assert config["base_model_name_or_path"] == "org/base" and config["task_type"] == "CAUSAL_LM"
    assert sorted(path.name for path in folder.parent.iterdir()) == ["mine"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([CONFIG, INFO, WEIGHTS])


def test_the_info_comes_back_with_unknown_fields(tiny, tmp_path):
    expert = tiny.expert("mine", scores={"dev": 0.5}, mood="sunny")
    write(tmp_path / "mine", expert, tiny.sites, fingerprint="sha256:tiny")
    back, _ = loaded(tiny, tmp_path / "mine")
    assert back.info["scores"] == {"dev": 0.5} and back.info["mood"] == "sunny" and back.info["price"] is None


def test_a_folder_is_replaced_whole_or_not_at_all(tiny, folder):
    (folder / "moejax_extras.safetensors").write_bytes(b"stale")
    write(folder, tiny.expert("mine", seed=5), tiny.sites)
    np.testing.assert_array_equal(
        loaded(tiny, folder)[0].loras["layers/attn/q", 1].a,
        tiny.expert("mine", seed=5).loras["layers/attn/q", 1].a,
    )
    assert not (folder / "moejax_extras.safetensors").exists()
    before = loaded(tiny, folder)[0].info["hash"]
    with pytest.raises(UserError, match="only numbers, strings"):
        write(folder, tiny.expert("mine", seed=6, scores=float("nan")), tiny.sites)
    assert loaded(tiny, folder)[0].info["hash"] == before
    assert [path.name for path in folder.parent.iterdir()] == ["mine"]


@pytest.mark.parametrize("fails_at", [1, 2])
def test_a_write_that_fails_midway_leaves_the_old_folder(tiny, folder, monkeypatch, fails_at):
    """The first file of the new folder, and the very step that puts it in place."""
    before, calls, real = loaded(tiny, folder)[0].info["hash"], [], os.replace

    def failing(source, target):
        calls.append(target)
        if fails_at == 1 or (str(source).endswith("new") and len(calls) > 1):
            raise OSError("disk full")
        real(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="disk full"):
        write(folder, tiny.expert("mine", seed=9), tiny.sites)
    monkeypatch.undo()
    assert loaded(tiny, folder)[0].info["hash"] == before
    assert [path.name for path in folder.parent.iterdir()] == ["mine"]


def test_what_cannot_be_written_is_refused(tiny, tmp_path):
    expert = tiny.expert("mine")
    with pytest.raises(UserError, match="adapts no site"):
        write(tmp_path / "mine", expert._replace(loras={}), tiny.sites)
    with pytest.raises(UserError, match="the base has no such site"):
        write(
            tmp_path / "mine",
            expert._replace(loras={("layers/attn/q", 9): expert.loras["layers/attn/q", 1]}),
            tiny.sites,
        )
    one = expert.loras["layers/attn/q", 1]
    for bad in (one._replace(alpha=-1.0), one._replace(alpha=float("nan")), one._replace(a=one.a * np.nan)):
        with pytest.raises(UserError, match="factors must be finite and alpha"):
            write(tmp_path / "mine", expert._replace(loras={("layers/attn/q", 1): bad}), tiny.sites)
    with pytest.raises(UserError, match="cannot name an expert"):
        write(tmp_path / "a:b", expert, tiny.sites)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_float_files_are_read_as_their_float32_values(tiny, folder, dtype):
    retensor(folder, lambda t: {key: value.astype(dtype) for key, value in t.items()})
    back, _ = loaded(tiny, folder)
    expected = tiny.expert("mine").loras["layers/attn/q", 1]
    got = back.loras["layers/attn/q", 1]
    assert got.a.dtype == got.b.dtype == np.float32
    np.testing.assert_array_equal(got.a, expected.a.astype(dtype).astype(np.float32))
    np.testing.assert_array_equal(got.b, expected.b.astype(dtype).astype(np.float32))


def test_the_hash_is_of_the_content_alone(tiny, folder):
    """Same numbers in a wider file and another order, same hash; any change of meaning, another."""
    expert = tiny.expert("mine")
    digest = content_hash(expert.loras)
    retensor(
        folder, lambda t: {k: t[k].astype(np.float64) for k in sorted(t, reverse=True)}, forget_hash=False
    )
    assert loaded(tiny, folder)[0].info["hash"] == digest
    reordered = dict(reversed(expert.loras.items()))
    fortran = {site: one._replace(a=np.asfortranarray(one.a)) for site, one in reordered.items()}
    assert content_hash(reordered) == content_hash(fortran) == digest
    site, one = next(iter(expert.loras.items()))
    changed = a, b, alpha, rslora, _ = (
        {site: one._replace(a=one.a + 1)},
        {site: one._replace(b=one.b + 1)},
        {site: one._replace(alpha=one.alpha + 1)},
        {site: one._replace(rslora=True)},
        {(site[0], site[1] + 1): one},
    )
    assert len({digest, *(content_hash(expert.loras | some) for some in changed)}) == 6


def test_the_report_counts_what_was_found(tiny, folder):
    edit(folder / CONFIG, lambda c: c.update(target_modules=["query", "intermediate.dense"]))
    retensor(folder, lambda t: t | {UP2 + "B.weight": t[UP2 + "B.weight"] * 0})
    _, report = loaded(tiny, folder)
    assert len(report.matched) == 2 and len(report.unmatched) == 4
    assert "encoder.layer.0.attention.self.query" in report.unmatched
    assert report.zero == (UP2 + "B.weight",)
    assert report.scale == {report.matched[0]: 2.0, report.matched[1]: 2.0}
    dense = lora.delta(tiny.expert("mine").loras["layers/attn/q", 1])
    assert report.norm == pytest.approx(float(np.linalg.norm(dense)), rel=1e-5)
    text = line(report._replace(median=1.0))
    assert "mine: 2 modules, scale 2, norm" in text and "(pool's median 1)" in text
    assert "4 targeted without weights" in text and "1 zero tensors" in text


def test_a_report_is_compared_with_its_pool(tiny, folder):
    _, report = loaded(tiny, folder)
    reports = [
        report._replace(name=name, norm=norm)
        for name, norm in zip("abcd", (1.0, 2.0, 3.0, 90.0), strict=True)
    ]
    compared = compare(reports, ["1", "2", "1", "4"])
    assert [one.median for one in compared] == [2.5] * 4
    assert compared[0].warnings == compared[1].warnings == ()
    assert compared[2].warnings == ("experts 'a' and 'c' hold the same weights",)
    assert compared[3].warnings == ("expert 'd' has 36 times the pool's median norm",)
    assert (
        "has 0.0333 times"
        in compare([r._replace(norm=n) for r, n in zip(reports, (3.0, 0.1, 3.0, 3.0), strict=True)], "1234")[
            1
        ].warnings[0]
    )
    assert not any(one.warnings for one in compare(reports[2:], ["1", "2"]))
    usual = [r._replace(norm=n) for r, n in zip(reports, (1.0, 0.15, 1.0, 9.0), strict=True)]
    assert not any(one.warnings for one in compare(usual, "1234"))


def test_scales_of_patterns_are_each_modules_own(tiny, tmp_path):
    sites = {
        ("layers/attn/q", 0): (2, 4.0, True),
        ("layers/attn/q", 1): (4, 4.0, True),
        ("layers/mlp/up", 0): (2, 8.0, True),
    }
    write(tmp_path / "mine", tiny.expert("mine", sites), tiny.sites)
    config = json.loads((tmp_path / "mine" / CONFIG).read_text())
    assert config["use_rslora"] and config["r"] == 2 and config["lora_alpha"] == 4
    assert list(config["rank_pattern"].values()) == [4] and list(config["alpha_pattern"].values()) == [8]
    _, report = loaded(tiny, tmp_path / "mine")
    expected = {("layers/attn/q", 0): 4 / 2**0.5, ("layers/attn/q", 1): 2.0, ("layers/mlp/up", 0): 8 / 2**0.5}
    assert {tiny.sites[module]: scale for module, scale in report.scale.items()} == pytest.approx(expected)


# --- refusals: one sentence naming the file and the tensor or field ---


def without(name):
    return lambda t: {key: value for key, value in t.items() if key != name}


def changed(name, change):
    return lambda t: t | {name: change(t[name])}


def poisoned(value):
    def change(a):
        a = a.copy()
        a[0, 0] = value
        return a

    return change


def wrong_shape(key, found, expected):
    return f"tensor '{key}.weight' has shape {found}: expected {expected}"


QA, QB, UB = Q1 + "A", Q1 + "B", UP2 + "B"
NOT_FINITE, NOT_THERE = "holds NaN or infinity", "is for a module that the base does not have"


@pytest.mark.parametrize(
    ("key", "change", "says"),
    [
        (QA, poisoned(np.nan), f"tensor '{QA}.weight' {NOT_FINITE}"),
        (UB, poisoned(np.inf), f"tensor '{UB}.weight' {NOT_FINITE}"),
        (QB, lambda b: b.astype(np.float64) * 1e300, f"tensor '{QB}.weight' {NOT_FINITE}"),
        (QA, lambda a: a.T.copy(), wrong_shape(QA, [8, 2], [2, 8])),
        (QA, lambda a: a[:1], wrong_shape(QA, [1, 8], [2, 8])),
        (UB, lambda b: b[:8], wrong_shape(UB, [8, 3], [12, 3])),
        (QA, lambda a: a.ravel(), wrong_shape(QA, [16], [2, 8])),
        (QA, lambda a: a.astype(np.int32), f"tensor '{QA}.weight' is I32: expected one of"),
        (QA, None, f"tensor '{QA}.weight' is missing"),
        (QB, None, f"tensor '{QB}.weight' is missing"),
    ],
)
def test_a_bad_tensor_is_refused(tiny, folder, key, change, says):
    key += ".weight"
    retensor(folder, without(key) if change is None else changed(key, change))
    assert says in refusal(tiny, folder)


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("rogue.weight", "unknown tensor 'rogue.weight'"),
        (Q1 + "magnitude_vector", "(DoRA's magnitudes)"),
        (QA + ".default.weight", "are of two adapters: save each in a folder of its own"),
        (QB + ".default.weight", "are of two adapters: save each in a folder of its own"),
        (QB + ".weight.x", "(a kind of LoRA that is not known here)"),
        (QA + ".bias", "(a kind of LoRA that is not known here)"),
        (QB + ".bias", "is a bias, but"),
        ("encoder.layer.1.attention.self.query.lora_A.weight", "are one and the same: keep one"),
        ("base_model.model.embeddings.word_embeddings.weight", "(a whole embedding, which was trained"),
        ("base_model.model.classifier.weight", "(a whole trained module)"),
        ("base_model.model.pooler.dense.bias", "(a trained bias)"),
        ("base_model.model.classifier.modules_to_save.weight", "(a whole trained module)"),
        ("base_model.model.embeddings.lora_embedding_A", "(a LoRA on an embedding)"),
        (
            QA.replace("query", "quary") + ".weight",
            f"{NOT_THERE} (closest: 'encoder.layer.1.attention.self.query')",
        ),
        (QA.replace("layer.1", "layer.7") + ".weight", NOT_THERE),
        (QA.replace("layer.1", "layer.0") + ".weight", "does not target"),
        ("../../" + QA + ".weight", "has a path for a name"),
        (QA.replace("query", "..") + ".weight", "has a path for a name"),
        ("/etc/passwd", "has a path for a name"),
        ("C:\\passwd", "has a path for a name"),
    ],
)
def test_an_unknown_tensor_is_refused(tiny, folder, key, says):
    retensor(folder, lambda t: t | {key: np.ones((2, 8), np.float32)})
    message = refusal(tiny, folder)
    assert says in message and repr(key) in message


def test_weights_that_do_nothing_are_refused(tiny, folder):
    retensor(folder, lambda t: {key: value * ("lora_B" not in key) for key, value in t.items()})
    assert f"every lora_B is zero, '{QB}.weight' first" in refusal(tiny, folder)
    save_file({}, folder / WEIGHTS)
    assert "holds no tensor" in refusal(tiny, folder)


def refusal(tiny, folder):
    """The one sentence that refuses the weights."""
    with pytest.raises(UserError) as raised:
        loaded(tiny, folder)
    message = str(raised.value)
    assert str(folder / WEIGHTS) in message and "\n" not in message
    return message


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c.update(r=0), "r is 0"),
        (lambda c: c.update(r=True), "r is True"),
        (lambda c: c.update(lora_alpha=0), "lora_alpha is 0"),
        (lambda c: c.update(lora_alpha=-2), "lora_alpha is -2"),
        (lambda c: c.update(lora_alpha=float("nan")), "lora_alpha is nan"),
        (lambda c: c.update(lora_alpha="16"), "lora_alpha is '16'"),
        (lambda c: c.update(use_dora=True), "use_dora is set"),
        (lambda c: c.update(bias="lora_only"), "bias is set"),
        (lambda c: c.update(modules_to_save=["classifier"]), "modules_to_save is set"),
        (lambda c: c.update(peft_type="LOHA"), "peft_type is 'LOHA'"),
        (lambda c: c.pop("peft_type"), "peft_type is None"),
    ],
)
def test_bad_configs_are_refused(tiny, folder, change, says):
    edit(folder / CONFIG, change)
    with pytest.raises(UserError) as raised:
        loaded(tiny, folder)
    assert str(folder / CONFIG) in str(raised.value) and says in str(raised.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no such file"),
        (b"", "not valid JSON"),
        (b'{"r": 4', "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[]", "expected a JSON object, found list"),
        (b"[" * 100_000, "not valid JSON"),
        (b" " * (16 * 2**20 + 1), "larger than 16 MiB"),
    ],
)
def test_a_config_that_is_missing_or_broken_is_refused(tiny, folder, content, says):
    (folder / CONFIG).unlink()
    if content is not None:
        (folder / CONFIG).write_bytes(content)
    with pytest.raises(UserError) as raised:
        loaded(tiny, folder)
    assert str(raised.value).startswith(f"{folder / CONFIG}: ") and says in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"12345", b"x" * 400, "half", "long header"])
def test_a_truncated_or_corrupt_file_is_refused(tiny, folder, content):
    whole = (folder / WEIGHTS).read_bytes()
    if content == "half":
        content = whole[: len(whole) // 2]
    elif content == "long header":
        content = (2**62).to_bytes(8, "little") + whole[8:]
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(UserError, match="adapter_model.safetensors: truncated or not a safetensors file"):
        loaded(tiny, folder)


def test_a_pickle_is_never_opened(tiny, folder):
    (folder / WEIGHTS).unlink()
    with pytest.raises(UserError, match="adapter_model.safetensors: no such file"):
        loaded(tiny, folder)
    (folder / PICKLE).write_bytes(b"cos\nsystem\n(S'exit'\ntR.")
    with pytest.raises(UserError, match="adapter_model.bin: only a pickle.*PeftModel.from_pretrained"):
        loaded(tiny, folder)


def test_another_base_is_refused_unless_allowed(tiny, folder):
    edit(folder / INFO, lambda info: info.update(base="sha256:other"))
    with pytest.raises(
        UserError,
        match="moejax.json: trained on base sha256:other, not on sha256:tiny.*--allow-base-mismatch",
    ):
        loaded(tiny, folder)
    _, report = loaded(tiny, folder, allow_base_mismatch=True)
    assert len(report.warnings) == 1 and "sha256:other" in report.warnings[0]
    assert read(folder, tiny.sites, tiny.shapes, None)[1].warnings == ()


@pytest.mark.parametrize("has_info", [True, False])
def test_no_recorded_base_is_a_warning_in_the_report(tiny, folder, has_info):
    if has_info:
        edit(folder / INFO, lambda info: info.update(base=None))
    else:
        (folder / INFO).unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expert, report = loaded(tiny, folder)
    assert "no base fingerprint is recorded" in report.warnings[0]
    assert expert.info["kind"] == "lora" and expert.info["hash"] == content_hash(expert.loras)


def test_info_that_contradicts_is_refused(tiny, folder):
    edit(folder / INFO, lambda info: info.update(base=7))
    with pytest.raises(UserError, match="moejax.json: base is 7"):
        loaded(tiny, folder)
    edit(folder / INFO, lambda info: info.update(kind="delta", base=None))
    with pytest.raises(UserError, match="moejax.json: kind is 'delta'"):
        loaded(tiny, folder)


def test_weights_changed_behind_the_hash_are_refused(tiny, folder):
    retensor(folder, changed(Q1 + "A.weight", lambda a: a * 2), forget_hash=False)
    with pytest.raises(UserError, match="its content is not what moejax.json recorded as `hash`"):
        loaded(tiny, folder)


BAD_NAMES = [
    "",
    ".",
    "..",
    "a/b",
    "/abs",
    "..\\up",
    "a:b",
    "tab\t",
    "nul\0",
    "new\nline",
    " x",
    "rtl\u202e",
    "x" * 256,
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_are_no_plain_folder_are_refused(name):
    with pytest.raises(UserError, match="cannot name an expert"):
        check_name(name)


def test_names_that_a_file_system_may_confuse_are_refused():
    check_names(["a", "b", "é", "Ünï code"])
    with pytest.raises(UserError, match="'Alice' and 'alice' differ only in case"):
        check_names(["Alice", "bob", "alice"])
    with pytest.raises(UserError, match="differ only in case"):
        check_names(["caf\u00e9", "cafe\u0301"])


def test_a_folder_that_is_not_there_is_named(tiny, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        loaded(tiny, tmp_path / "nowhere")
    write(tmp_path / "mine", tiny.expert("mine"), tiny.sites)
    monkeypatch.chdir(tmp_path / "mine")
    assert loaded(tiny, os.curdir)[0].name == "mine"
