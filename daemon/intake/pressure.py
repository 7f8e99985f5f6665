"""When the controller is asked to hold the flow cell, and when to go on."""

import shutil
import time
from collections import deque
from pathlib import Path

from seqd_client.status import DiskStatus, SpoolStatus

from daemon.config import MemoryConfig, SpoolConfig


class Backpressure:
    """Holds above the spool's high-water mark until it is below the low one.

    Images in memory hold too when the spool takes none of them: it is at its limit, or its disk fails.
    """

    def __init__(self, memory: MemoryConfig, spool: SpoolConfig) -> None:
        self._memory, self._spool = memory, spool
        self.holding: bool | None = None
        """What the controller was asked for; None before the first time: an earlier daemon may have left it holding."""

    def change(self, *, waiting_bytes: int, spooled_bytes: int) -> bool | None:
        """True where a hold is to be asked for, False for a release, None where nothing changes.

        Parameters
        ----------
        waiting_bytes : in memory, not counting a cycle that is being imaged.
        """
        memory, spool = self._memory, self._spool
        above = waiting_bytes > (memory.spill_above + memory.refuse_above) / 2 or spooled_bytes > spool.hold_above
        below = waiting_bytes <= memory.spill_above and spooled_bytes <= spool.release_below
        if above:
            return None if self.holding else True
        return False if self.holding is None or (self.holding and below) else None


WINDOW_S = 300.0
"""How far back growth is looked at."""

LEAST_S = 2.0
"""Before so much has been seen nothing is foretold."""

STEP_S = 1.0
"""Values are kept this far apart."""


class Forecast:
    """Watches one growing amount."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque()

    def see(self, amount: float, now_s: float) -> None:
        """Take note of the amount there is."""
        if self._seen and now_s - self._seen[-1][0] < STEP_S:
            return
        self._seen.append((now_s, amount))
        while now_s - self._seen[0][0] > WINDOW_S:
            self._seen.popleft()

    def full_in_s(self, limit: float) -> float | None:
        """Seconds until the amount is at its limit at the rate of the window; None while it does not grow."""
        if len(self._seen) < 2 or self._seen[-1][0] - self._seen[0][0] < LEAST_S:
            return None
        (began_s, before), (now_s, amount) = self._seen[0], self._seen[-1]
        rate = (amount - before) / (now_s - began_s)
        return max(0.0, limit - amount) / rate if rate > 0 else None


class Gauges:
    """Reads what fills up, and remembers how it grew."""

    def __init__(self, folder: Path, *, spool_limit: int) -> None:
        self._folder, self._spool_limit = folder, spool_limit
        self._spool, self._disk = Forecast(), Forecast()

    def spool(self, images: int, image_bytes: int) -> SpoolStatus:
        """The spool with so many images that wait."""
        held = images * image_bytes
        self._spool.see(held, time.monotonic())
        return SpoolStatus(
            images=images,
            bytes=held,
            limit=self._spool_limit,
            full_in_s=_rounded(self._spool.full_in_s(self._spool_limit)),
        )

    def disk(self) -> DiskStatus:
        """The disk of the output folder; nothing is known of one that does not answer."""
        try:
            usage = shutil.disk_usage(self._folder)
        except OSError:
            return DiskStatus()
        # Reserved blocks are free and cannot be had: what is free counts, not what is used.
        self._disk.see(-usage.free, time.monotonic())
        return DiskStatus(free=usage.free, full_in_s=_rounded(self._disk.full_in_s(0)))


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
