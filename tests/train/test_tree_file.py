"""Trees as files: what comes back, what is refused, and that nothing is left half written."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from moejax.train import tree_file
from moejax.types import UserError


class Record(NamedTuple):
    a: np.ndarray
    b: np.ndarray | None = None


TREE = {
    "layers/attn/q": {"gate": np.arange(6, dtype=np.float32).reshape(2, 3)},
    "record": Record(np.array([True, False])),
    "scalar": np.int32(7),
    "small": jnp.ones(3, jnp.bfloat16),
    "empty": {},
}


def test_a_tree_comes_back_as_nested_dicts(tmp_path):
    tree_file.save(tmp_path / "deep" / "tree.safetensors", TREE)
    found = tree_file.load(tmp_path / "deep" / "tree.safetensors")
    assert found.keys() == {"layers/attn/q", "record", "scalar", "small"}  # an empty dict holds nothing
    assert np.array_equal(found["layers/attn/q"]["gate"], TREE["layers/attn/q"]["gate"])
    assert found["record"].keys() == {"a"} and found["record"]["a"].dtype == bool
    assert found["scalar"].shape == () and found["scalar"].dtype == np.int32 and found["scalar"] == 7
    assert found["small"].dtype == jnp.bfloat16 and (found["small"] == 1).all()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["tree.safetensors"]


def test_an_array_in_another_order_of_memory_is_the_same_array(tmp_path):
    turned = np.arange(6, dtype=np.float32).reshape(2, 3).T
    tree_file.save(tmp_path / "tree.safetensors", {"t": turned})
    assert np.array_equal(tree_file.load(tmp_path / "tree.safetensors")["t"], turned)


def test_a_tree_of_nothing_is_a_tree(tmp_path):
    tree_file.save(tmp_path / "tree.safetensors", {"places": {}, "knobs": {}})
    assert tree_file.load(tmp_path / "tree.safetensors") == {}


def test_a_name_that_would_be_split_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'a|b' cannot name a leaf"):
        tree_file.save(tmp_path / "tree.safetensors", {"a|b": np.zeros(1)})
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "tree.safetensors"
    tree_file.save(path, {"a": np.zeros(1)})

    def full(flat, part):
        part.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(tree_file, "save_file", full)
    with pytest.raises(OSError, match="no space"):
        tree_file.save(path, {"a": np.ones(1)})
    assert tree_file.load(path)["a"] == 0
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("cut", [0, 5, -1])
def test_a_file_that_is_not_whole_is_refused_by_name(tmp_path, cut):
    path = tmp_path / "tree.safetensors"
    tree_file.save(path, TREE)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match=r"tree\.safetensors: not a whole safetensors file"):
        tree_file.load(path)
