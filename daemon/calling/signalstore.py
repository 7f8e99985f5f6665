"""Signals of tile-cycles that wait until they can be called."""

import numpy as np
from seqd_client.runinfo import TileId

from calib.calling.signals import Signals
from daemon.record.runfiles import RunFiles
from daemon.record.storageretry import StorageRetry

MEMORY_BYTES = 2**28
"""Signals beyond this bound go to the spool folder. They take 28 bytes for each cluster and cycle, and
three cycles of each tile are kept."""


class SignalStore:
    """Keeps signals in memory up to a bound, and the rest on disk; one thread uses it.

    Signals are rounded to half precision in both places, so that calls do not depend on the place. The files are not
    synced: after a kill the signals are computed again from the images.
    """

    def __init__(self, files: RunFiles, retry: StorageRetry, *, memory_bytes: int = MEMORY_BYTES) -> None:
        self._files, self._retry, self._memory_bytes = files, retry, memory_bytes
        self._held: dict[tuple[TileId, int], np.ndarray[tuple[int, ...], np.dtype[np.float16]]] = {}
        self._bytes = 0

    def put(self, tile: TileId, cycle: int, signals: Signals) -> None:
        """Keep the signals of a tile-cycle.

        Raises
        ------
        OutputError : memory is full and the file cannot be written.
        """
        packed = signals.packed()
        if self._bytes + packed.nbytes <= self._memory_bytes:
            self._held[tile, cycle] = packed
            self._bytes += packed.nbytes
        else:
            path = self._files.spooled_signals(tile, cycle)
            self._retry("spool", lambda: np.save(path, packed, allow_pickle=False))

    def get(self, tile: TileId, cycle: int) -> Signals:
        """The signals that :meth:`put` kept.

        Raises
        ------
        OutputError : the file of the signals cannot be read.
        """
        packed = self._held.get((tile, cycle))
        if packed is None:
            packed = self._retry("spool", lambda: np.load(self._files.spooled_signals(tile, cycle)))
        return Signals.unpacked(packed)

    def drop(self, tile: TileId, cycle: int) -> None:
        """Forget the signals of a tile-cycle, if there are any."""
        packed = self._held.pop((tile, cycle), None)
        if packed is not None:
            self._bytes -= packed.nbytes
        else:
            self._retry("spool", lambda: self._files.spooled_signals(tile, cycle).unlink(missing_ok=True))
