"""Routers and runs: settings, tensors, base and experts of the fit, and every part of a run."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import own
import pytest
from safetensors.numpy import load_file, save_file

from moejax import methods
from moejax.commands.check_run import router, run
from moejax.config import BaseConfig, Config, plain
from moejax.evaluate import router_file
from moejax.evaluate.grants import Grants
from moejax.experts.pool import read_pool
from moejax.models.weights import load
from moejax.train.run_folder import open_run


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with a base, and a run of it that has two experts and three routers."""
    root = own.everything(tmp_path_factory.mktemp("run"))
    base = load(root / "base")
    config = Config(base=BaseConfig(source=str(root / "base")))
    with open_run(root / "run", plain(config)) as opened:
        opened.bind(base=base.fingerprint)
        shutil.copytree(root / "experts", root / "run" / "experts")
        opened.mark("experts", {"seconds": 1.0})
        pool, _ = read_pool(root / "experts", base.sites, base.shapes, base.layers, base.fingerprint)
        for name in ("arrow", "uniform", "own_expert"):
            method = methods.load(name)
            settings = method.Config()
            fitted = method.fit(settings, base, pool, Grants(frozenset(), {}), None)
            router_file.save(opened.router(name), method, settings, base, pool, fitted)
    return root


@pytest.fixture
def folder(made, tmp_path) -> Path:
    """A run to spoil."""
    return Path(shutil.copytree(made / "run", tmp_path / "run"))


def record(folder: Path, **changes) -> None:
    path = folder / "router.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_sound_run_is_told_part_by_part(made, folder):
    found = run(folder, None)
    assert found.count() == 0
    assert found.warnings == []
    assert found.lines == [f"seed 0, base {made / 'base'}"]
    assert [part.what.rpartition("/")[2] for part in found.parts] == [
        "experts: 2 of 2 experts can be read", "arrow", "own_expert", "uniform",
    ]  # fmt: skip
    assert found.parts[1].lines == ["arrow over 2 experts"]


def test_a_router_alone_is_compared_with_the_run_it_stands_in(folder, tmp_path):
    where = folder / "routers" / "own_expert"
    assert router(where, None).faults == router(where, None).warnings == []
    own.expert(load_base(folder), folder / "experts" / "cy")
    shutil.rmtree(folder / "experts" / "ann")
    said = "\n".join(router(where, None).faults)
    assert "expert 'ann', which the pool lacks" in said
    assert "the pool has expert 'cy'" in said
    is_open = router(folder / "routers" / "arrow", None)
    assert is_open.faults == [] and len(is_open.warnings) == 2, "an open method takes other experts"
    own.expert(load_base(folder), folder / "experts" / "dan")
    last = router(where, None).faults[-1]
    assert "'dan'" in last, "slots are not counted where names say more"
    alone = shutil.copytree(where, tmp_path / "alone")
    assert router(alone, None).warnings == [
        "its experts were not compared: they, or their base (--base), are not at hand"
    ]


def load_base(folder: Path):
    return load(json.loads((folder / "config.json").read_text())["config"]["base"]["source"])


def test_what_is_wrong_in_a_router_is_all_told(folder):
    where = folder / "routers" / "arrow"
    record(where, config={"k": 4, "temprature": 1.0}, base="sha256:other")
    tensors = load_file(where / "router.safetensors")
    save_file(
        {name: np.full_like(value, np.nan) for name, value in tensors.items()}, where / "router.safetensors"
    )
    said = router(where, None).faults
    for words in (
        "router.json: the method has no setting 'temprature'", "the setting 'aggregation' is missing",
        "the setting 'temperature' is missing", "'router|knobs|temperature' holds NaN", "fitted on base sha256:other",
    ):  # fmt: skip
        assert [fault for fault in said if words in fault], words
    assert len(said) == 5


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda where: (where / "router.json").write_text("{"), "not a whole router"),
        (lambda where: record(where, experts=["ann"]), "'experts' is no object"),
        (lambda where: (where / "router.safetensors").unlink(), "not a whole safetensors file"),
        (lambda where: record(where, method="arow"), "there is no method 'arow'"),
    ],
)
def test_a_router_that_is_no_whole_one(folder, spoil, words):
    where = folder / "routers" / "arrow"
    spoil(where)
    assert [words in fault for fault in router(where, None).faults] == [True]
    assert run(folder, None).count() == 1


def test_what_is_wrong_in_a_run_is_all_told(folder):
    (folder / "stages" / "experts.json").write_text("{")
    (folder / "results.json").write_text("nothing")
    config = json.loads((folder / "config.json").read_text())
    config["keys"] |= {"base": "sha256:other", "code": "older"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "experts" / "ann" / "adapter_model.safetensors").write_bytes(b"cut")
    found = run(folder, None)
    assert found.warnings == [w for w in found.warnings if "made by other code (older there" in w] != []
    said = "\n".join(found.faults)
    for words in ("experts.json is not JSON", "results.json is not JSON", "of base sha256:other"):
        assert words in said
    assert len(found.faults) == 3
    assert found.parts[0].count() == 1


def test_a_run_without_its_record_says_so(folder):
    (folder / "config.json").write_text("{}")
    assert ["not that of a run" in fault for fault in run(folder, None).faults] == [True]
    (folder / "config.json").unlink()
    assert ["not that of a run" in fault for fault in run(folder, None).faults] == [True]


def test_a_run_of_given_experts_is_compared_with_them(made, folder):
    config = Config(base=BaseConfig(source=str(made / "base")), pool=str(made / "experts"))
    recorded = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(recorded | {"config": plain(replace(config, seed=3))}))
    shutil.rmtree(folder / "experts")
    found = run(folder, None)
    assert found.count() == 0
    assert found.lines[0].startswith("seed 3")
    assert str(made / "experts") in found.parts[0].what
    other = shutil.copytree(made / "experts", folder.parent / "grown")
    own.expert(load_base(folder), other / "cy")
    grown = plain(replace(config, pool=str(other)))
    (folder / "config.json").write_text(json.dumps(recorded | {"config": grown}))
    found = run(folder, None)
    assert found.count() == 0, "such a run fits its routers anew"
    assert ["expert 'cy'" in warning for warning in found.parts[2].warnings] == [True]


def test_without_its_base_a_run_is_told_as_far_as_it_goes(folder):
    config = json.loads((folder / "config.json").read_text())
    config["config"]["base"]["source"] = "nowhere/there"
    (folder / "config.json").write_text(json.dumps(config))
    found = run(folder, None)
    assert found.count() == 0
    assert any("were not compared" in warning for warning in found.parts[1].warnings)
