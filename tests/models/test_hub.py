"""Names on the hub: what its cache holds is found without a network, of experts too; what it lacks is said."""

import shutil

import huggingface_hub.constants
import pytest
import shell

from moejax.commands.routed import Routed, ready
from moejax.models.folder import ADAPTER, WANTED, locate
from moejax.types import UserError

COMMIT = "0" * 39 + "1"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub's cache with a base and an expert, laid out as its client does it."""
    for name, source in (("base", "base"), ("ant-lora", "experts/ant")):
        home = tmp_path / "hub" / f"models--me--{name}"
        (home / "refs").mkdir(parents=True)
        (home / "refs" / "main").write_text(COMMIT)
        shutil.copytree(shell.shared() / source, home / "snapshots" / COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


def test_what_was_downloaded_is_found_without_a_network(hub):
    assert locate("me/base") == hub / "models--me--base" / "snapshots" / COMMIT
    experts = shell.shared() / "experts"
    made = ready(Routed(base="me/base", experts=f"me/ant-lora, {experts / 'bee'}", method="uniform"))
    assert made.pool.names == ("ant-lora", "bee")
    assert made.base.identity == shell.made("base").base.identity


@pytest.mark.parametrize(
    ("name", "wanted"), [("me/other", WANTED), ("me/other", ADAPTER), ("other", ADAPTER)]
)
def test_what_was_not_is_said_in_one_sentence(hub, name, wanted):
    with pytest.raises(
        UserError, match=f"{name} is neither a folder here nor .* that the hub gives"
    ) as error:
        locate(name, wanted)
    assert "\n" not in str(error.value) and "where there is a network" in str(error.value)


def test_a_template_and_what_ends_an_answer_are_fetched_too():
    assert {"generation_config.json", "chat_template*", "tokenizer*"} <= set(WANTED)
    assert not [pattern for pattern in (*WANTED, *ADAPTER) if pattern.endswith((".py", ".bin", ".pt"))]


def test_a_folder_that_is_not_there_is_no_name_on_the_hub():
    with pytest.raises(
        UserError, match=r"there is no folder /absent/ant: give a folder with adapter_config.json"
    ):
        locate("/absent/ant", ADAPTER)
