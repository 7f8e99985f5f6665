"""How full spool and disk are, and when they will be full."""

import shutil
import time
from pathlib import Path

from daemon.backlog.forecast import Forecast
from daemon.watching.status import DiskStatus, SpoolStatus


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
