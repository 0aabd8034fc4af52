"""A thousand experts, sixteen slots: each used twice, in memory that the slots bound."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import cache_folder

HERE, COUNT, SLOTS, MARGIN = Path(__file__).parent, 1000, 16, 32 * 2**20


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads RssAnon, which Linux tells")
def test_a_thousand_experts_are_used_twice_in_the_memory_of_sixteen(tmp_path):
    """MARGIN: outlines, names and reports of all experts, one expert being read, and what the allocator keeps."""
    words = [sys.executable, str(HERE / "big_pool.py"), str(tmp_path / "pool"), str(COUNT), str(SLOTS)]
    told = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)]),
        "PROGRAMS": cache_folder(),
    }
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, env=told)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["used"] == 2 * COUNT and found["distinct"] == COUNT and found["read"] > 1.9 * COUNT
    assert found["most"] - found["before"] < 2 * found["slots"] + MARGIN < found["whole"] / 2, found
    assert found["compiled"] == []
    assert found["apart"] < 1e-4 < 0.01 < found["spread"]
