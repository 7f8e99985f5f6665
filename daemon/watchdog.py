"""The watchdog: systemd is told of life only while work gets done."""

import time

from daemon.notify import Notifier
from daemon.progress import Progress

FEED_S = 5.0
"""How often systemd is told at most."""


class Watchdog:
    """Feeds systemd's watchdog as long as the caller gets work done, or has nothing to do.

    A caller that holds tile images and finishes none stops being fed, and systemd restarts the daemon.
    """

    def __init__(self, notifier: Notifier, progress: Progress, *, stalled_after_s: float) -> None:
        self._notifier, self._progress = notifier, progress
        self._stalled_after_s = stalled_after_s
        self._marks, self._moved_s, self._fed_s = -1, time.monotonic(), 0.0

    def tick(self) -> None:
        """Call often; feeds when there is progress to tell of."""
        now = time.monotonic()
        if now - self._fed_s < FEED_S:
            return
        marks = self._progress.marks
        if marks != self._marks or not self._progress.working:
            self._marks, self._moved_s = marks, now
        if now - self._moved_s < self._stalled_after_s:
            self._fed_s = now
            self._notifier.alive()
            status = self._progress.snapshot()
            counts = status.tile_cycles
            self._notifier.show(
                f"{status.state} {status.run} cycle {status.cycle}/{status.cycles}, "
                f"called {counts.called}, missing {counts.missing}, failed {counts.failed}, lag {status.lag.cycles}"
            )
