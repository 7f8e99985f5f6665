"""The time that the controller takes to image a cycle, and the time that the daemon waits for a missing frame."""

from collections import deque
from statistics import median

REMEMBERED = 8
"""The time of a cycle is the median of this many cycles, so that one cycle with a hold does not change the median."""

UNKNOWN_S = 30.0
"""The daemon waits this long for a frame while it does not know the time of a cycle."""

CYCLES = 2
"""The daemon waits for a frame as long as this many cycles take, once it knows the time of a cycle."""

MIN_S, MAX_S = 10.0, 600.0
"""Bounds of this wait."""


class CycleTime:
    """Learns the time of a cycle from the moments at which the controller finished cycles."""

    def __init__(self) -> None:
        self._last: tuple[int, float] | None = None
        self._took_s: deque[float] = deque(maxlen=REMEMBERED)

    def finished(self, cycle: int, now_s: float) -> None:
        """Note that the controller has finished a cycle; any skipped cycles get equal parts of the time."""
        if self._last is not None and cycle > self._last[0]:
            self._took_s.append((now_s - self._last[1]) / (cycle - self._last[0]))
        self._last = cycle, now_s

    @property
    def cycle_s(self) -> float | None:
        """Seconds that a cycle takes; None before two cycles are finished."""
        return median(self._took_s) if self._took_s else None

    @property
    def missing_after_s(self) -> float:
        """Seconds after which a requested frame is missing."""
        if self.cycle_s is None:
            return UNKNOWN_S
        return min(max(CYCLES * self.cycle_s, MIN_S), MAX_S)
