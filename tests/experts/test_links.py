"""Links in a folder of a stranger: within it, or within one repository of the hub's cache; nowhere else."""

import shutil

import pytest

from moejax.experts import extras
from moejax.experts.files import read, write
from moejax.experts.folder import CONFIG, INFO, SAMPLES, WEIGHTS
from moejax.experts.pool_folder import add
from moejax.types import UserError


@pytest.fixture
def folder(tiny, tmp_path):
    write(tmp_path / "mine", tiny.expert("mine"), tiny.sites)
    return tmp_path / "mine"


def moved(folder, name, to):
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(folder / name, to)
    (folder / name).symlink_to(to)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, INFO])
def test_a_link_that_leaves_is_refused(tiny, folder, tmp_path, name):
    moved(folder, name, tmp_path / "elsewhere" / name)
    with pytest.raises(
        UserError, match=f"{name} is a symbolic link that leaves the folder: put the file itself there"
    ):
        read(folder, tiny.sites, tiny.shapes, tiny.fingerprint)


def test_a_link_within_is_followed(tiny, folder):
    moved(folder, WEIGHTS, folder / "blob")
    assert read(folder, tiny.sites, tiny.shapes, tiny.fingerprint)[0].loras


def test_samples_too(folder, tmp_path):
    (tmp_path / "s").write_text("{}\n")
    (folder / SAMPLES).symlink_to(tmp_path / "s")
    with pytest.raises(UserError, match="leaves the folder"):
        extras.read(folder, "samples", {}, {})


def test_a_snapshot_of_the_hubs_cache_is_read_and_added(tiny, folder, tmp_path):
    repository = tmp_path / "hub" / "models--owner--name"
    snapshot = repository / "snapshots" / "abc" / "trec"
    snapshot.parent.mkdir(parents=True)
    shutil.move(folder, snapshot)
    for name in (CONFIG, WEIGHTS, INFO):
        moved(snapshot, name, repository / "blobs" / name)
    assert read(snapshot, tiny.sites, tiny.shapes, tiny.fingerprint)[0].loras
    add(tmp_path / "pool", snapshot, "trec")
    assert not (tmp_path / "pool" / "trec" / WEIGHTS).is_symlink()
    (tmp_path / "hub" / "models--owner--other" / "blobs").mkdir(parents=True)
    other = tmp_path / "hub" / "models--owner--other" / "blobs" / "x"
    shutil.move(repository / "blobs" / WEIGHTS, other)
    (snapshot / WEIGHTS).unlink()
    (snapshot / WEIGHTS).symlink_to(other)
    with pytest.raises(UserError, match="leaves the folder"):
        read(snapshot, tiny.sites, tiny.shapes, tiny.fingerprint)
