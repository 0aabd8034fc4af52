"""What all tests share: eight CPU devices, strict ranks, no network, and who may skip."""

import gc
import importlib.util
import os
import re
import signal
import sys
from pathlib import Path

import pytest
from quick_programs import FLAGS
from typed import check_some

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub, which reads it once
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}".strip()
)  # read once, before any program

check_some()

PEERS = ("torch", "peft", "lm_eval")
MAPS = Path("/proc/self/maps")  # of Linux: every program takes some, and a process may have 65,530
OF_LINES = ("test_contract.py", "test_same_numbers.py", "test_recipes.py")
LONG = (
    "test_nothing_lost.py",
    "test_two_processes.py",
    "test_pipeline.py",
    "test_big_pool.py",
)  # one worker is long at them, and the other has the rest
ran = 0


def cache_folder() -> str:
    """Where compiled programs stay between runs: the user's cache, never the repository."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(Path(home) / "moejax" / "xla")


def pytest_configure(config):
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job, which hears no Ctrl-C
        signal.signal(signal.SIGINT, signal.default_int_handler)
    import absl.flags
    import jax

    jax.config.update("jax_platforms", os.environ.get("JAX_PLATFORMS", "cpu"))
    jax.config.update("jax_num_cpu_devices", 8)
    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.config.update("jax_compilation_cache_dir", cache_folder())
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_disable_most_optimizations", True)
    if not absl.flags.FLAGS.is_parsed():
        absl.flags.FLAGS(sys.argv[:1])  # grain reads absl flags and raises when nobody has parsed them

    missing = [peer for peer in PEERS if importlib.util.find_spec(peer) is None]
    if wants_parity(config) and missing:
        raise pytest.UsageError(f"parity tests need {' and '.join(missing)}: run make parity")


@pytest.fixture(autouse=True, scope="session")
def _small_blocks():
    """Blocks are unrolled, and compiling them is most of what tests do; those of aggregation take them as they are."""
    from moejax.aggregation import rule

    before, rule.LARGEST = rule.LARGEST, 8
    yield
    rule.LARGEST = before


def wants_parity(config) -> bool:
    """True when the parity tests were asked for, and asked for means: no excuse."""
    return config.option.markexpr.strip() == "parity"


def pytest_collection_modifyitems(config, items):
    """Parity tests run when asked for and not otherwise: a plain `pytest` leaves them out. Long files come first."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))
    if not wants_parity(config):
        left_out = [item for item in items if item.get_closest_marker("parity")]
        if left_out:
            config.hook.pytest_deselected(items=left_out)
            items[:] = [item for item in items if not item.get_closest_marker("parity")]


def pytest_collection_finish():
    """What is imported stays: the collector need not look at it, nor come with every few traced equations."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file stays on one worker, where what its tests share is made and traced once; of some, what is of a line."""
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return together(nodeid)

    return Together(config, log)


def together(nodeid: str) -> str:
    """The file of a test; where each is asked of every line, of a method or a training, the line too."""
    file, _, test = nodeid.partition("::")
    line = re.search(r"\[(.*?)(-encoder|-decoder|-sizes\d+)?\]$", test)
    return f"{file} {line[1]}" if line and file.endswith(OF_LINES) else file


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A parity test that skips has failed: it compared nothing."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and wants_parity(item.config):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: a parity test may not skip: {report.longrepr}"
    return report


def pytest_runtest_teardown(item):
    """Let go of compiled programs before there are more than a process may hold; they are in the cache on disk."""
    global ran
    ran += 1
    if ran % 25 == 0 and MAPS.exists() and MAPS.read_bytes().count(b"\n") > 30_000:
        import jax
        import world

        world.fitted.cache_clear()  # a fit that is kept stands for programs that are compiled
        jax.clear_caches()
