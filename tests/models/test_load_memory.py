"""Loading 1 GB: at most one stacked leaf above the result, in either type, on one device or spread over four."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
SLACK = 48 * 2**20  # bytes: pieces of files, what Python and the allocator keep


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from models import load_memory

    made = tmp_path_factory.mktemp("gigabyte")
    assert load_memory.make(made) >= 10**9
    return made


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read as Linux tells it")
@pytest.mark.parametrize(("dtype", "devices"), [("float32", 1), ("bfloat16", 1), ("float32", 4)])
def test_peak_is_one_stacked_leaf_above_the_result(folder, dtype, devices):
    flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "JAX_PLATFORMS": "cpu"}
    script = Path(__file__).with_name("load_memory.py")
    ran = subprocess.run(
        [sys.executable, script, folder, dtype, str(devices)],
        env=os.environ | flags, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["result"] >= (10**9 if dtype == "float32" else 5 * 10**8) and found["devices"] == devices
    assert found["result"] <= found["peak"] <= found["result"] + found["leaf"] + SLACK, found
