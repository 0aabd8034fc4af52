"""Compile time is measured: what was compiled, what was read from the cache on disk."""

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from moejax.stages.compiling import Compiling, compiling

NAMES = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


@pytest.fixture
def empty_cache(tmp_path):
    """Programs go to an empty folder meanwhile, however quickly they are compiled."""
    before = {name: jax.config.values[name] for name in NAMES}
    for name, value in zip(NAMES, (str(tmp_path), 0.0), strict=True):
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def test_a_program_is_compiled_once_and_then_read(empty_cache):
    program = jax.jit(lambda x: jnp.sin(x) @ x)
    x = jax.random.normal(jax.random.key(0), (8, 8))
    with compiling() as first:
        program(x)
    with compiling() as again:
        program(x)
    program.clear_cache()
    with compiling() as read:
        program(x)
    assert first.compiled == 1 and first.read == 0 and first.seconds > 0 and first.read_seconds == 0
    assert again == Compiling()
    assert read.compiled == 0 and read.read == 1 and read.read_seconds > 0
    assert 0 <= read.seconds < first.seconds  # what a program that is read takes beside the reading
    assert first.compiled == 1  # nothing is counted after the end


def test_what_it_came_to_is_one_line_and_one_record():
    found = Compiling(14, 12.34, 9, 0.41)
    assert found.line() == "programs: 14 compiled in 12.3 s, 9 read from the cache in 0.4 s"
    assert found.record("train.py") == {
        "stage": "compiling", "command": "train.py", "compiled": 14, "seconds": 12.34, "read": 9, "read_seconds": 0.41,
    }  # fmt: skip
    assert Compiling().line() == "programs: 0 compiled in 0.0 s, 0 read from the cache in 0.0 s"
