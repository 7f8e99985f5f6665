"""The figures of every tile and cycle of a run: what InterOp files, summary and report are drawn from."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from seqd_client.runinfo import Read, TileId
from seqd_client.status import CycleStatus

from calib.phasing import Phasing, estimate_phasing
from daemon.record.committed import CommittedRun

STATUSES = (None, *CycleStatus)
"""By the numbers of :attr:`RunMetrics.status`."""

SCORES = 64
"""A byte of calls has room for Phred scores below this."""


class RunMetrics:
    """Figures by tile and cycle, kept as far as they are known; the same for the same committed cycles.

    Axes are (tiles, cycles, ...), tiles in the order of the run. Quality and bases are those of the clusters that pass
    the filter, and 0 as long as a tile's filter is not known.
    """

    def __init__(self, run: CommittedRun, worked: Callable[[], None] = lambda: None) -> None:
        self.run, self.info = run, run.info
        shape = len(run.info.tiles), run.info.cycles
        self.clusters = np.zeros(shape[0], np.int64)
        """(tiles,) of the template."""
        self.passing = np.zeros(shape[0], np.int64)
        """(tiles,) that pass the filter; 0 as long as that is not known."""
        self.known = np.zeros(shape[0], np.int64)
        """(tiles,) cycles whose rows of the ledger are here."""
        self.counted = np.zeros(shape[0], np.int64)
        """(tiles,) cycles whose quality and bases are here."""
        self.quality = np.zeros((*shape, SCORES), np.uint32)
        """Calls by Phred score; at 0 no-calls."""
        self.bases = np.zeros((*shape, 5), np.uint32)
        """Calls of A, C, G, T, and no-calls."""
        self.status = np.zeros(shape, np.uint8)
        """Index into :data:`STATUSES`."""
        self.drift_px = np.full((*shape, 2), np.nan, np.float32)
        """y and x; NaN where nothing was registered, as in all that follow."""
        self.intensity = np.full((*shape, 4), np.nan, np.float32)
        self.called_intensity = np.full((*shape, 4), np.nan, np.float32)
        self.average_intensity = np.full((*shape, 4), np.nan, np.float32)
        self.focus_px = np.full((*shape, 4), np.nan, np.float32)
        """:class:`calib.imagequality.ImageQuality`, of A, C, G and T."""
        self.engine_s = np.full(shape, np.nan, np.float32)
        self.committed_ns = np.zeros(shape, np.int64)
        self._phasing: dict[tuple[TileId, Read, int], Phasing] = {}
        self.update(worked)

    def update(self, worked: Callable[[], None] = lambda: None) -> None:
        """Take in what the run was refreshed with.

        Parameters
        ----------
        worked : called now and then, so that who waits sees progress.
        """
        for index, tile in enumerate(self.info.tiles):
            if self.run.committed[tile] > self.known[index]:
                self._take_rows(index, tile)
            if self.run.filtered(tile) and self.known[index] > self.counted[index]:
                self._count(index, tile)
                worked()

    def phasing(self, tile: TileId, read: Read) -> Phasing:
        """Of the cycles of a read that are committed."""
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


def yields(metrics: RunMetrics, least: int = 0) -> NDArray[np.int64]:
    """(tiles, cycles) calls of at least a Phred score; no-calls count for 0."""
    counted: NDArray[np.int64] = metrics.quality[:, :, least:].sum(axis=2, dtype=np.int64)
    return counted
