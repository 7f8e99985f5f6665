"""The watchdog: systemd is told of life only while work gets done."""

import time

import structlog

from daemon.watching.notify import Notifier
from daemon.watching.progress import Progress

FEED_S = 5.0
"""How often systemd is told at most."""

log = structlog.get_logger()


class Watchdog:
    """Feeds systemd's watchdog as long as work gets done, or there is none.

    A daemon that has tile images and finishes none says so once and stops being fed: systemd starts it anew. One that
    waits for a full disk or an engine with a reason goes on being fed.
    """

    def __init__(self, notifier: Notifier, progress: Progress) -> None:
        self._notifier, self._progress = notifier, progress
        self._fed_s, self._stalled = 0.0, False

    def tick(self) -> None:
        """Call often."""
        now = time.monotonic()
        if now - self._fed_s < FEED_S:
            return
        status = self._progress.snapshot()
        counts = status.tile_cycles
        if self._progress.stalled:
            if not self._stalled:
                self._stalled = True
                log.error("stalled", run=status.run, stalled_s=status.stalled_s, pending=counts.pending)
                self._notifier.show(f"stalled for {status.stalled_s:g} s with {counts.pending} tile-cycles in hand")
            return
        self._fed_s, self._stalled = now, False
        self._notifier.alive()
        self._notifier.show(
            f"{status.state} {status.run} cycle {status.cycle}/{status.cycles}, "
            f"called {counts.called}, missing {counts.missing}, failed {counts.failed}, lag {status.lag.cycles}"
            + (f", {status.phase}" if status.phase else "")
        )
