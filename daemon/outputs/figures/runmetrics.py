"""The figures of every tile and cycle of a run."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from seqd_client.runinfo import Read, TileId
from seqd_client.status import CycleStatus

from calib.phasing import Phasing, estimate_phasing
from daemon.record.committed import CommittedRun

STATUSES = (None, *CycleStatus)
"""Meanings of the numbers in :attr:`RunMetrics.status`."""

SCORES = 64
"""Phred scores that a byte of calls can have: 0 to 63."""


class RunMetrics:
    """Figures by tile and cycle, as far as they are known; the same committed cycles give the same figures.

    Axes are (tiles, cycles, ...), with the tiles in the order of the run. Quality and bases count the clusters that
    pass the filter; they are 0 until a tile's filter is known.
    """

    def __init__(self, run: CommittedRun, heartbeat: Callable[[], None] = lambda: None) -> None:
        """
        Parameters
        ----------
        heartbeat : as :meth:`update`.
        """
        self.run, self.info = run, run.info
        shape = len(run.info.tiles), run.info.cycles
        self.clusters = np.zeros(shape[0], np.int64)
        """(tiles,) clusters of the template."""
        self.passing = np.zeros(shape[0], np.int64)
        """(tiles,) clusters that pass the filter; 0 until the filter is known."""
        self.known = np.zeros(shape[0], np.int64)
        """(tiles,) number of cycles, from the first, whose figures from the ledger are included."""
        self.counted = np.zeros(shape[0], np.int64)
        """(tiles,) number of cycles, from the first, whose quality and bases are included."""
        self.quality = np.zeros((*shape, SCORES), np.uint32)
        """Calls by Phred score; no-calls are at 0."""
        self.bases = np.zeros((*shape, 5), np.uint32)
        """Calls of A, C, G, T, and no-calls."""
        self.status = np.zeros(shape, np.uint8)
        """Index into :data:`STATUSES`."""
        self.drift_px = np.full((*shape, 2), np.nan, np.float32)
        """Drift in y and x. This and the next five arrays are NaN where a cycle was not called."""
        self.intensity = np.full((*shape, 4), np.nan, np.float32)
        self.called_intensity = np.full((*shape, 4), np.nan, np.float32)
        self.average_intensity = np.full((*shape, 4), np.nan, np.float32)
        self.focus_px = np.full((*shape, 4), np.nan, np.float32)
        """:class:`calib.imagequality.ImageQuality`, of A, C, G and T."""
        self.engine_s = np.full(shape, np.nan, np.float32)
        self.committed_ns = np.zeros(shape, np.int64)
        self._phasing: dict[tuple[TileId, Read, int], Phasing] = {}
        self.update(heartbeat)

    def update(self, heartbeat: Callable[[], None] = lambda: None) -> None:
        """Add the cycles that the last refresh of the run found committed.

        Parameters
        ----------
        heartbeat : called from time to time, to show that the work continues.
        """
        for index, tile in enumerate(self.info.tiles):
            if self.run.committed[tile] > self.known[index]:
                self._take_rows(index, tile)
            if self.run.filtered(tile) and self.known[index] > self.counted[index]:
                self._count(index, tile)
                heartbeat()

    def phasing(self, tile: TileId, read: Read) -> Phasing:
        """Phasing of a read, estimated from its committed cycles."""
        cycles = self.info.cycles_of(read)
        last = min(self.run.committed[tile], cycles[-1])
        if (tile, read, last) not in self._phasing:
            seen = self.run.ledger.neighbour_light(tile)
            self._phasing = {key: found for key, found in self._phasing.items() if key[:2] != (tile, read)}
            self._phasing[tile, read, last] = estimate_phasing(
                {cycle - cycles.start + 1: light for cycle, light in seen.items() if cycles.start <= cycle <= last}
            )
        return self._phasing[tile, read, last]

    def _take_rows(self, index: int, tile: TileId) -> None:
        after, last = int(self.known[index]), self.run.committed[tile]
        self.clusters[index] = self.run.clusters[tile]
        for row in self.run.ledger.rows(tile, after=after):
            if row.cycle <= last:
                at = index, row.cycle - 1
                self.status[at] = STATUSES.index(row.status)
                self.committed_ns[at] = row.committed_ns
                if row.drift_y is not None:
                    self.drift_px[at] = row.drift_y, row.drift_x
                if row.engine_s is not None:
                    self.engine_s[at] = row.engine_s
        for image in self.run.ledger.images(tile, after=after):
            if image.cycle <= last:
                of = index, image.cycle - 1, image.channel
                self.intensity[of] = image.intensity
                self.called_intensity[of] = image.called
                self.average_intensity[of] = image.average
                self.focus_px[of] = np.nan if image.focus_px is None else image.focus_px
        self.known[index] = last

    def _count(self, index: int, tile: TileId) -> None:
        passing = self.run.passing(tile)
        self.passing[index] = np.count_nonzero(passing)
        for cycle in range(int(self.counted[index]) + 1, int(self.known[index]) + 1):
            counts = np.bincount(self.run.calls(tile, cycle)[passing], minlength=4 * SCORES)
            by_score = counts.reshape(SCORES, 4)
            self.quality[index, cycle - 1] = by_score.sum(axis=1)
            # A no-call is 0, which would be an A of score 0.
            self.bases[index, cycle - 1, :4] = by_score[1:].sum(axis=0)
            self.bases[index, cycle - 1, 4] = by_score[0].sum()
        self.counted[index] = self.known[index]


def yields(metrics: RunMetrics, min_score: int = 0) -> NDArray[np.int64]:
    """(tiles, cycles) calls of at least a Phred score; no-calls have score 0."""
    return np.asarray(metrics.quality[:, :, min_score:].sum(axis=2, dtype=np.int64))
