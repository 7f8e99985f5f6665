"""Counts of demultiplexing: clusters, mismatches, yield and quality of every sample, and unknown barcodes."""

from collections import Counter
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray
from seqd_client.runinfo import RunInfo

from calib.calling.scores import NO_CALL
from daemon.outputs.reads.conversion import FilesBy, groups_of
from daemon.outputs.reads.recordbytes import NO_CALL_QUALITY, letters
from daemon.outputs.samples.barcodes import UNDETERMINED, Demultiplexer
from daemon.record.committed import CommittedRun

CHUNK = 16_000_000
"""Calls read at a time."""

GOOD = 30
"""Lowest Phred score of a good call."""

MISMATCHES = 4
"""Clusters with 0, 1, 2, and 3 or more mismatches are counted separately."""

MAX_UNKNOWN = 200_000
"""Unknown barcodes that are counted in a lane; when there are more, the rarer half is dropped."""


class SampleCounts:
    """Counts of a run; the last sample stands for undetermined clusters."""

    def __init__(self, info: RunInfo, demultiplexer: Demultiplexer, lanes: Collection[int]) -> None:
        """
        Parameters
        ----------
        lanes : lanes to count.
        """
        self.info, self.demultiplexer = info, demultiplexer
        self.lanes = sorted(lanes)
        self.reads = [read for read in info.reads if not read.index]
        size = len(self.lanes), len(demultiplexer.names) + 1
        self.clusters = np.zeros((*size, 2, MISMATCHES), np.int64)
        """(lanes, samples, filter failed or passed, mismatches); undetermined clusters count as 0 mismatches."""
        self.bases = np.zeros((*size, len(self.reads)), np.int64)
        """(lanes, samples, template reads) calls of clusters that pass the filter, including no-calls."""
        self.good = np.zeros_like(self.bases)
        """Calls of at least Q30."""
        self.scores = np.zeros_like(self.bases)
        """Sum of the calls' Phred scores; a no-call counts with the score that FASTQ gives it."""
        self.unknown: dict[int, Counter[bytes]] = {lane: Counter() for lane in self.lanes}
        """How often each barcode of undetermined clusters that pass the filter occurs, by lane; as letters."""

    def count(self, lane: int, calls: NDArray[np.uint8], passing: NDArray[np.bool_]) -> None:
        """Match clusters of a lane with the samples, and count them.

        Parameters
        ----------
        calls : (cycles, n) bytes of the run's first cycles; these include all index reads.
        passing : (n,) whether they pass the chastity filter.
        """
        index_cycles = [cycle for read in self.info.reads if read.index for cycle in self.info.cycles_of(read)]
        index = calls[np.array(index_cycles) - 1]
        match = self.demultiplexer.match(lane, index)
        at = self.lanes.index(lane)
        clusters = self.clusters[at]
        # UNDETERMINED, -1, becomes the index of the last sample.
        sample, mismatches = match.sample % len(clusters), np.minimum(match.mismatches, MISMATCHES - 1)
        cell = np.ravel_multi_index((sample, passing.astype(np.int32), mismatches), clusters.shape)
        clusters += np.bincount(cell, minlength=clusters.size).reshape(clusters.shape)
        for read, of in enumerate(self.reads):
            cycles = self.info.cycles_of(of)
            self._count_scores(at, read, match.sample, calls[cycles.start - 1 : cycles.stop - 1], passing)
        self._count_unknown(lane, index[:, passing & (match.sample == UNDETERMINED)])

    def _count_scores(
        self, lane: int, read: int, sample: NDArray[np.int32], calls: NDArray[np.uint8], passing: NDArray[np.bool_]
    ) -> None:
        # No-calls are 0, and so are their scores.
        scores = np.sum(calls >> 2, axis=0, dtype=np.int32)
        scores += NO_CALL_QUALITY * np.count_nonzero(calls == NO_CALL, axis=0).astype(np.int32)
        good = np.count_nonzero(calls >= GOOD << 2, axis=0)
        samples = self.bases.shape[1]
        of = sample[passing] % samples
        self.bases[lane, :, read] += len(calls) * np.bincount(of, minlength=samples)
        for counted, each in ((self.good, good), (self.scores, scores)):
            # Sums stay below 2⁵³: doubles are exact.
            counted[lane, :, read] += np.bincount(of, weights=each[passing], minlength=samples).astype(np.int64)

    def _count_unknown(self, lane: int, calls: NDArray[np.uint8]) -> None:
        compared = np.concatenate([letters(calls[part]) for part in self.demultiplexer.lanes[lane].parts])
        barcodes, counts = np.unique(
            np.ascontiguousarray(compared.T).view(f"S{len(compared)}").ravel(), return_counts=True
        )
        unknown = self.unknown[lane]
        unknown.update(dict(zip(barcodes.tolist(), counts.tolist(), strict=True)))
        if len(unknown) > MAX_UNKNOWN:
            self.unknown[lane] = Counter(dict(unknown.most_common(MAX_UNKNOWN // 2)))


def count_samples(run: CommittedRun, demultiplexer: Demultiplexer, *, by: FilesBy = FilesBy.LANE) -> SampleCounts:
    """Count the samples of the clusters and cycles that an export by lane, or by run, writes.

    Raises
    ------
    ExportError : as by :func:`daemon.outputs.reads.conversion.groups_of`.
    OutputError : its files cannot be read.
    """
    groups = groups_of(run, by, samples=True)
    stats = SampleCounts(run.info, demultiplexer, {tile.lane for group in groups for tile in group.tiles})
    for group in groups:
        for tile in group.tiles:
            passing = run.passing(tile)
            for part, calls in run.chunks(tile, group.cycles, calls=CHUNK):
                stats.count(tile.lane, calls, passing[part])
    return stats
