"""What is tracked: small files, and nothing that holds on one machine alone."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# written in halves, so that this file does not hold what it looks for
MACHINE = re.compile(
    "|".join(["/wo" + "rk/", "/home/" + "[a-z]", "/Us" + "ers/", "/ro" + "ot/", "_jobs" + "/"])
)
HOST = re.compile("|".join(["files.python" + "hosted", r"pypi\.org/" + "simple", "registry.npm" + "js"]))
BINARY = {".png", ".safetensors", ".array_record", ".gz"}


def tracked() -> list[Path]:
    try:
        listing = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [path for name in listing.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_no_tracked_file_is_large():
    assert not [path.name for path in tracked() if path.stat().st_size > 2**20]


def test_no_tracked_file_names_a_machine_or_a_registry():
    texts = {path: path.read_text() for path in tracked() if path.suffix not in BINARY}
    assert not {path.name: found[0] for path, text in texts.items() if (found := MACHINE.search(text))}
    assert not {path.name: found[0] for path, text in texts.items() if (found := HOST.search(text))}
