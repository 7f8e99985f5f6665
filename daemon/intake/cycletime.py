"""How long the controller takes to image a cycle, and how long the daemon waits for a missing frame."""

from collections import deque
from statistics import median

REMEMBERED = 8
"""The time is the median of so many cycles, so that a hold of the flow cell is soon forgotten."""

UNKNOWN_S = 30.0
"""The daemon waits so long for a frame while it knows no cycle's time."""

CYCLES = 2
"""Else it waits as long as so many cycles take to image, within the two bounds below."""

MIN_S, MAX_S = 10.0, 600.0


class CycleTime:
    """Learns the time of a cycle from the moments at which the controller finished cycles."""

    def __init__(self) -> None:
        self._finished: tuple[int, float] | None = None
        self._took_s: deque[float] = deque(maxlen=REMEMBERED)

    def passed(self, cycle: int, now_s: float) -> None:
        """Note that the controller has passed a cycle; skipped cycles share the time."""
        if self._finished is not None and cycle > self._finished[0]:
            self._took_s.append((now_s - self._finished[1]) / (cycle - self._finished[0]))
        self._finished = cycle, now_s

    @property
    def cycle_s(self) -> float | None:
        """Seconds that a cycle takes; None before two cycles have passed."""
        return median(self._took_s) if self._took_s else None

    @property
    def missing_after_s(self) -> float:
        """Seconds after which a frame that was asked for is missing."""
        if self.cycle_s is None:
            return UNKNOWN_S
        return min(max(CYCLES * self.cycle_s, MIN_S), MAX_S)
