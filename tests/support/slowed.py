"""``seqd run`` with a slow engine: ``python -m tests.slowed SECONDS FIRST LAST run ...``.

The tiles that the engine is given from FIRST to LAST take SECONDS longer each.
"""

import sys
import time

from daemon.cli.app import main
from engines.slots import SlottedEngine


def slow_down(seconds: float, first: int, last: int) -> None:
    """Every engine of this process."""
    collect, collected = SlottedEngine.collect, 0

    def slow(engine, slot, timeout_s):
        nonlocal collected
        collected += 1
        if first <= collected <= last:
            time.sleep(seconds)
        return collect(engine, slot, timeout_s)

    SlottedEngine.collect = slow


if __name__ == "__main__":
    seconds, first, last, *sys.argv[1:] = sys.argv[1:]
    slow_down(float(seconds), int(first), int(last))
    main()
