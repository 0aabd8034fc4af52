"""What the parent of a process says when its child ends, and how."""

import signal
import subprocess
import sys

import pytest

from moejax.parallel.supervise import supervised

ABORT = "import os, sys; print('{}', file=sys.stderr, flush=True); os.abort()"
UNHEALTHY = (  # in the words of jaxlib 0.10.2
    "UNAVAILABLE: The following tasks are unhealthy (stopped sending heartbeats):\\n1\\nThe tasks have crashed. "
    "Check the task logs for an earlier error"
)
RERUN = "python train.py --dist on"
TIED = "from moejax.parallel.supervise import tied; tied()(['north', 'south']); "


def ends(code: str) -> int:
    return supervised(["-c", code], RERUN)


@pytest.mark.parametrize("status", [0, 2, 130, 143, 1])
def test_a_child_that_ends_by_itself_has_the_word(status, capfd):
    assert ends(f"import sys; print('said', file=sys.stderr); sys.exit({status})") == status
    assert capfd.readouterr().err == "said\n"


def test_an_abort_names_the_lost_peer_and_the_command(capfd):
    assert ends(TIED + ABORT.format(UNHEALTHY)) == 75
    lines = capfd.readouterr().err.splitlines()
    assert lines[1] == "1"
    assert lines[-1].startswith("lost process 1 (south) after ")
    assert lines[-1].endswith(f" s; to go on, start all processes again, this one by: {RERUN}")


def test_an_abort_before_the_others_were_met_names_none(capfd):
    assert ends(ABORT.format("no answer")) == 75
    assert "lost a peer that the runtime does not name after" in capfd.readouterr().err


def test_an_error_of_the_runtime_is_a_lost_peer_and_another_is_not(capfd):
    assert ends("raise RuntimeError('Gloo: connection closed by peer')") == 75
    assert "lost a peer" in capfd.readouterr().err
    assert ends("raise RuntimeError('a fault of ours')") == 1
    assert "lost" not in capfd.readouterr().err


def test_a_killed_child_is_no_lost_peer(capfd):
    assert ends("import os; os.kill(os.getpid(), 9)") == 128 + 9
    err = capfd.readouterr().err
    assert err.startswith("SIGKILL ended this process after ") and err.endswith(f"{RERUN}\n")


def parent(code: str) -> subprocess.Popen:
    """A process that supervises a child of this code, which has written a line."""
    words = f"import sys; from moejax.parallel.supervise import supervised; sys.exit(supervised(['-c', {code!r}], ''))"
    found = subprocess.Popen([sys.executable, "-c", words], stdout=subprocess.PIPE, text=True)
    assert found.stdout is not None and found.stdout.readline() == "ready\n"
    return found


WAIT = "import time; print('ready', flush=True); time.sleep(60)"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_handed_on(number):
    code = (
        "import signal, sys; [signal.signal(n, lambda got, _: sys.exit(40 + got)) for n in (2, 15)]; " + WAIT
    )
    with parent(code) as one:
        one.send_signal(number)
        assert one.wait(20) == 40 + number


def test_a_child_does_not_outlive_its_parent():
    with parent(TIED + WAIT) as one:
        one.kill()
        assert one.communicate(timeout=20) == (
            "",
            None,
        )  # the pipe is the child's too: its end is the child's end
