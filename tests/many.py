"""`python many.py --config FILE FLAGS`: train.py and eval.py of a tiny run, as one of several processes.

DIE=LOOP:STEPS:PROCESS:SIGNAL sends that process this signal when so many steps of the loop are done and saved.
"""

import os
import sys

import killed

from moejax.cli import main
from moejax.parallel import hosts
from moejax.train.due import Due
from moejax.train.work import Work


def die_at(loop: str, steps: int, process: int, number: int) -> None:
    """Send this process a signal, if it is that one, once so many steps of the loop are done and saved."""
    begin, saved = Work.loop, Due.saved

    def looping(self, name, *rest, **options):
        def dying(due, done):
            saved(due, done)
            if (name, done, hosts.index()) == (loop, steps, process):
                os.kill(os.getpid(), number)

        Due.saved = dying
        return begin(self, name, *rest, **options)

    Work.loop = looping


if __name__ == "__main__":
    if "DIE" in os.environ:
        name, *numbers = os.environ["DIE"].split(":")
        die_at(name, *map(int, numbers))
    sys.exit(main(killed.both, sys.argv[1:], "many.py"))
