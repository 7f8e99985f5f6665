"""Troubles: faults that hinder a run, and that the daemon waits out."""

import threading
import time

from seqd_client.status import Phase, Trouble


class Troubles:
    """The troubles of the present run; any thread may use it.

    Two threads may have troubles of the same name; each thread ends its own.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, int], tuple[Phase, str, float]] = {}
        """By name and thread: phase, text, and when the trouble began."""

    def begin(self, what: str, phase: Phase, text: str) -> None:
        """Note a trouble of the calling thread, or a new text for it."""
        with self._lock:
            key = what, threading.get_ident()
            since = self._known[key][2] if key in self._known else time.monotonic()
            self._known[key] = phase, text, since

    def end(self, what: str) -> None:
        """Note that a trouble of the calling thread has passed."""
        with self._lock:
            self._known.pop((what, threading.get_ident()), None)

    def clear(self) -> None:
        """Forget all troubles."""
        with self._lock:
            self._known.clear()

    def listed(self) -> list[Trouble]:
        """All troubles, in the form of the status."""
        now = time.monotonic()
        with self._lock:
            return [
                Trouble(what=what, phase=phase, text=text, since_s=round(now - since, 1))
                for (what, _), (phase, text, since) in self._known.items()
            ]
