"""How long the controller takes to image a cycle, and how long a missing frame is waited for."""

from collections import deque
from statistics import median

REMEMBERED = 8
"""Cycles that the time is the median of; a hold of the flow cell is soon forgotten."""

UNKNOWN_S = 30.0
"""A frame is waited for this long while no cycle's time is known."""

CYCLES = 2
"""A frame is waited for as long as so many cycles take to image."""

LEAST_S, MOST_S = 10.0, 600.0


class ImagingTime:
    """Learns the time of a cycle from the moments at which cycles were over."""

    def __init__(self) -> None:
        self._over: tuple[int, float] | None = None
        self._took_s: deque[float] = deque(maxlen=REMEMBERED)

    def over(self, cycle: int, now_s: float) -> None:
        """The controller has gone past a cycle; cycles that were skipped share the time."""
        if self._over is not None and cycle > self._over[0]:
            self._took_s.append((now_s - self._over[1]) / (cycle - self._over[0]))
        self._over = cycle, now_s

    @property
    def cycle_s(self) -> float | None:
        """Seconds that a cycle takes; None before two were over."""
        return median(self._took_s) if self._took_s else None

    @property
    def missing_after_s(self) -> float:
        """Seconds after which a frame that was asked for is missing."""
        if self.cycle_s is None:
            return UNKNOWN_S
        return min(max(CYCLES * self.cycle_s, LEAST_S), MOST_S)
