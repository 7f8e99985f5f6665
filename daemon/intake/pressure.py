"""Pressure: when the controller is asked to hold or release the flow cell, and how soon an amount reaches its limit."""

from collections import deque

from daemon.config import MemoryConfig, SpoolConfig


class Backpressure:
    """Asks for a hold when the spool has grown above ``hold_above``, and for a release below ``release_below``.

    Images in memory also lead to a hold when they cannot move to the spool, because it is at its limit or its disk
    fails.
    """

    def __init__(self, memory: MemoryConfig, spool: SpoolConfig) -> None:
        self._memory, self._spool = memory, spool
        self.holding: bool | None = None
        """Whether the controller was asked to hold; None before the first request, as an earlier daemon may have
        asked for a hold."""

    def change(self, *, waiting_bytes: int, spooled_bytes: int) -> bool | None:
        """True when a hold is to be requested, False for a release, None when nothing changes.

        Parameters
        ----------
        waiting_bytes : bytes in memory, without the cycle that is being imaged.
        spooled_bytes : bytes in the spool.
        """
        memory, spool = self._memory, self._spool
        above = waiting_bytes > (memory.spill_above + memory.refuse_above) / 2 or spooled_bytes > spool.hold_above
        below = waiting_bytes <= memory.spill_above and spooled_bytes <= spool.release_below
        if above:
            return None if self.holding else True
        return False if self.holding is None or (self.holding and below) else None


WINDOW_S = 300.0
"""A forecast is made from the growth during this time."""

MIN_WINDOW_S = 2.0
"""No forecast is made from a shorter time."""

STEP_S = 1.0
"""Time between two amounts that are remembered."""


class Forecast:
    """Forecasts when a growing amount reaches a limit."""

    def __init__(self) -> None:
        self._amounts: deque[tuple[float, float]] = deque()

    def add(self, amount: float, now_s: float) -> None:
        """Remember the present amount."""
        if self._amounts and now_s - self._amounts[-1][0] < STEP_S:
            return
        self._amounts.append((now_s, amount))
        while now_s - self._amounts[0][0] > WINDOW_S:
            self._amounts.popleft()

    def full_in_s(self, limit: float) -> float | None:
        """Seconds until the amount reaches the limit at its present rate; None while it does not grow."""
        if len(self._amounts) < 2 or self._amounts[-1][0] - self._amounts[0][0] < MIN_WINDOW_S:
            return None
        (began_s, before), (now_s, amount) = self._amounts[0], self._amounts[-1]
        rate = (amount - before) / (now_s - began_s)
        return round(max(0.0, limit - amount) / rate, 1) if rate > 0 else None
