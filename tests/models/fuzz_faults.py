"""Cases that fail in every way that tests/fuzz.py has to see."""

import os
import signal

from fuzz import REFUSED


def case(seed, folder):
    if seed == 0:
        bytearray(3 * 2**30)
    elif seed == 1:
        while True:
            pass
    elif seed == 2:
        os.kill(os.getpid(), signal.SIGSEGV)
    elif seed == 3:
        return 1 // 0
    return REFUSED
