"""Liveness: whether the daemon finishes work, and how long the imaging controller has been silent."""

import math
import threading
import time
from collections.abc import Callable

SLICE_S = 0.1
"""A waiting thread checks at this interval whether the daemon was asked to stop."""


class Liveness:
    """Remembers when work was finished and when the controller sent a message; any thread may use it.

    Parameters
    ----------
    stalled_after_s : a daemon is stalled when it has work and finishes none of it for this long.
    """

    def __init__(self, *, stalled_after_s: float = math.inf) -> None:
        self._stalled_after_s = stalled_after_s
        self._lock = threading.Lock()
        self._activity = 0
        self._working, self._worker = False, 0
        self._message_s = self._progress_s = time.monotonic()

    def note_work(self) -> None:
        """Note that a piece of work is finished."""
        with self._lock:
            self._activity += 1
            self._progress_s = time.monotonic()

    def note_wait(self) -> None:
        """Note that this thread waits for a known reason. If it is the worker, the run does not count as stalled."""
        with self._lock:
            self._activity += 1
            if threading.get_ident() == self._worker:
                self._progress_s = time.monotonic()

    def wait(self, pause_s: float, stopping: Callable[[], bool]) -> None:
        """Wait until the pause has passed or the daemon is asked to stop; this does not count as a stall."""
        until = time.monotonic() + pause_s
        while not stopping() and (left := until - time.monotonic()) > 0:
            time.sleep(min(SLICE_S, left))
            self.note_wait()

    def set_working(self, working: bool) -> None:
        """Note whether there is work; only the thread that does the work calls this."""
        with self._lock:
            self._worker = threading.get_ident()
            if working and not self._working:
                self._progress_s = time.monotonic()
            self._working = working

    def note_message(self) -> None:
        """Note that a message of the controller came."""
        self._message_s = time.monotonic()

    @property
    def silent_s(self) -> float:
        """Seconds since the last message of the controller."""
        return time.monotonic() - self._message_s

    @property
    def stalled_s(self) -> float:
        """Seconds without finished work or a known reason to wait; 0 while there is no work."""
        return time.monotonic() - self._progress_s if self._working else 0.0

    @property
    def stalled(self) -> bool:
        """Whether the daemon has work and finishes none of it."""
        return self.stalled_s >= self._stalled_after_s

    @property
    def activity(self) -> int:
        """A number that grows with every piece of work and every wait for a known reason."""
        return self._activity
