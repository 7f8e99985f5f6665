"""Error rates from a spike-in: known DNA that was put on the flow cell together with the samples.

A read is *placed* where it fits a sequence of the spike-in best, if it fits well enough.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import comb
from pathlib import Path
from typing import ClassVar

import mappy
import numpy as np
from numpy.typing import NDArray
from seqd_client.errors import SeqdError
from seqd_client.runinfo import Read, TileId

from calib.calling.scores import NO_CALL
from calib.fasta import UNKNOWN, FastaError, read_fasta, reverse_complement
from daemon.outputs.figures.runmetrics import RunMetrics

LENGTHS = (25, 50, 100, 150, 200, 300)
"""Number of a read's first cycles that decide where it is placed.

The number is the highest one of this tuple that is committed and not longer than the longest sequence. A read that is
shorter than the second one is placed again with all its cycles, as soon as all are committed.
"""

MAX_CLUSTERS = 50_000
"""Clusters of a tile and read that are tried; they are spread evenly over those that pass the filter."""

MAX_WRONG = 0.3
"""Largest share of wrong bases with which a read counts as one of the spike-in.

The share is taken of the bases that are used to place the read.

The limit is high, so that reads of mixed clusters are included: their errors are errors of the run.
"""

MAX_FALSE_RATE = 1e-5
"""Largest probability that a read of other DNA is placed; it allows short reads fewer errors than :data:`MAX_WRONG`."""

SHORT_READ = 50
"""A read of at most this many bases is searched with shorter seeds (exact matches), or its errors would hide it."""


class SpikeInError(SeqdError):
    """The FASTA file of a spike-in cannot be read, or no read can be placed on it."""

    exit_code: ClassVar[int] = 3


class SpikeInReference:
    """The sequences of a spike-in, both strands of each.

    Parameters
    ----------
    path : FASTA, plain or gzip.

    Raises
    ------
    SpikeInError : it cannot be read, is not FASTA, names a sequence twice, or all its sequences are too short.
    """

    def __init__(self, path: Path) -> None:
        try:
            sequences = read_fasta(path, kind="control")
        except FastaError as error:
            raise SpikeInError(str(error)) from error
        # Every k-mer is a seed (w=1) and a single seed is enough: otherwise a short read with an error in the middle
        # would not be found, and the error rate would be too low.
        self._short, self._long = (
            mappy.Aligner(
                str(path), k=k, w=1, min_cnt=1, min_chain_score=k, min_dp_score=k, scoring=(2, 4, 12, 2), n_threads=1
            )
            for k in (9, 11)
        )
        strands: list[NDArray[np.uint8]] = []
        self._starts: dict[str, tuple[int, int]] = {}
        at = 0
        for sequence in sequences:
            length = len(sequence.bases)
            self._starts[sequence.name] = at, at + length
            strands += [sequence.bases, reverse_complement(sequence.bases)]
            at += 2 * length
        self.longest = max(map(len, strands))
        """Bases of the longest sequence."""
        if self.longest < LENGTHS[0]:
            raise SpikeInError(f"control {path}: no sequence has {LENGTHS[0]} bases, the minimum to place a read")
        self.bases = np.concatenate(strands)
        """(n,) 0-3 or :data:`UNKNOWN`: each sequence, then its other strand in the order in which it is read."""
        self._stops = np.cumsum([len(strand) for strand in strands])

    def place(self, reads: NDArray[np.uint8]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Indices of the reads that can be placed, and the index in :attr:`bases` of the first base of each.

        A read is not placed with gaps, nor beyond a sequence's end.

        Parameters
        ----------
        reads : (n, length) bases 0-3, or :data:`UNKNOWN`, which counts as wrong.
        """
        length = reads.shape[1]
        aligner, buffer = self._short if length <= SHORT_READ else self._long, mappy.ThreadBuffer()
        letters = np.frombuffer(b"ACGTN", np.uint8)[reads].tobytes().decode()
        found: list[tuple[int, int]] = []
        for number in range(len(reads)):
            for hit in aligner.map(letters[number * length : (number + 1) * length], buf=buffer):
                if len(hit.cigar) == 1:
                    forward, backward = self._starts[hit.ctg]
                    start, first = (
                        (forward, hit.r_st - hit.q_st)
                        if hit.strand > 0
                        else (backward, hit.ctg_len - hit.r_st - hit.q_en)
                    )
                    if 0 <= first <= hit.ctg_len - length:
                        found.append((number, start + first))
        numbers, places = np.array(found, np.intp).reshape(-1, 2).T
        wrong = np.count_nonzero(self.bases[places[:, None] + np.arange(length)] != reads[numbers], axis=1)
        best = np.lexsort((places, wrong, numbers))
        best = best[np.diff(numbers[best], prepend=-1) > 0]
        best = best[wrong[best] <= allowed_errors(length, places=len(self.bases))]
        return numbers[best], places[best]

    def stops(self, places: NDArray[np.intp]) -> NDArray[np.intp]:
        """For each index in :attr:`bases`, the index where its strand ends."""
        return np.asarray(self._stops[np.searchsorted(self._stops, places, side="right")], np.intp)


@dataclass
class _PlacedReads:
    """The reads of a tile that come from the spike-in; arrays are (n,)."""

    length: int
    """Number of cycles that were used to place them."""
    clusters: NDArray[np.intp]
    places: NDArray[np.intp]
    stops: NDArray[np.intp]
    wrong: NDArray[np.int64]
    """Errors of each read in the cycles that were compared."""
    compared: int = 0
    """Number of cycles that were compared."""


class SpikeInErrors:
    """Errors in the reads of a spike-in, as far as they are known; the same committed cycles give the same errors.

    The bases of template reads are compared one by one from the first, without gaps. No-calls and index reads are not
    compared.
    """

    def __init__(
        self, metrics: RunMetrics, reference: SpikeInReference, heartbeat: Callable[[], None] = lambda: None
    ) -> None:
        self._metrics, self._reference = metrics, reference
        tiles, cycles = len(metrics.info.tiles), metrics.info.cycles
        self.sampled = np.zeros((tiles, len(metrics.info.reads)), np.int64)
        """(tiles, reads) clusters that were tried; 0 until the first of :data:`LENGTHS` cycles are committed."""
        self.aligned = np.zeros_like(self.sampled)
        """(tiles, reads) clusters that were placed."""
        self.compared = np.zeros((tiles, cycles), np.int64)
        """(tiles, cycles) bases of placed reads that were compared."""
        self.wrong = np.zeros_like(self.compared)
        """(tiles, cycles) bases that differ from the spike-in's."""
        self.reads_by_errors = np.zeros((tiles, cycles, 5), np.uint32)
        """(tiles, cycles, 5) reads with 0, 1, 2, 3 and 4 errors from their first cycle to this one."""
        self._placed: dict[tuple[TileId, Read], _PlacedReads] = {}
        self.update(heartbeat)

    @property
    def percent_aligned(self) -> NDArray[np.float64]:
        """(tiles, reads) share of the tried clusters that were placed; NaN where none was tried."""
        return _percent(self.aligned, self.sampled)

    @property
    def percent_wrong(self) -> NDArray[np.float64]:
        """(tiles, cycles) error rates; NaN where nothing was compared."""
        return _percent(self.wrong, self.compared)

    def update(self, heartbeat: Callable[[], None] = lambda: None) -> None:
        """Add the cycles that the last update of the metrics added.

        Parameters
        ----------
        heartbeat : called from time to time, to show that the work continues.
        """
        info = self._metrics.info
        for number, read in enumerate(info.reads):
            cycles = info.cycles_of(read)
            for index, tile in enumerate(info.tiles):
                known = min(int(self._metrics.counted[index]) - cycles.start + 1, read.cycles)
                if not read.index and known >= LENGTHS[0]:
                    self._compare(index, tile, number, read, known)
                    heartbeat()

    def _compare(self, index: int, tile: TileId, number: int, read: Read, known: int) -> None:
        first = self._metrics.info.cycles_of(read).start
        lengths = (*LENGTHS, read.cycles) if read.cycles < LENGTHS[1] else LENGTHS
        length = max(one for one in lengths if one <= min(known, self._reference.longest))
        placed = self._placed.get((tile, read))
        if placed is None or placed.length != length:
            placed = self._place(index, tile, number, first, length)
            self._placed[tile, read] = placed
        for cycle in range(first + placed.compared, first + known):
            bases = _bases(self._metrics.run.calls(tile, cycle)[placed.clusters])
            at = placed.places + (cycle - first)
            inside = at < placed.stops
            expected = self._reference.bases[np.where(inside, at, 0)]
            compared = inside & (expected != UNKNOWN) & (bases != UNKNOWN)
            wrong = compared & (bases != expected)
            placed.wrong += wrong
            self.compared[index, cycle - 1] = np.count_nonzero(compared)
            self.wrong[index, cycle - 1] = np.count_nonzero(wrong)
            self.reads_by_errors[index, cycle - 1] = np.bincount(placed.wrong, minlength=5)[:5]
            # Counted cycle by cycle: if one cannot be read, the next update continues there.
            placed.compared = cycle - first + 1

    def _place(self, index: int, tile: TileId, number: int, first: int, length: int) -> _PlacedReads:
        run = self._metrics.run
        passing = np.flatnonzero(run.passing(tile))
        count = min(len(passing), MAX_CLUSTERS)
        tried = passing[np.arange(count) * len(passing) // max(1, count)]
        calls = np.stack([run.calls(tile, cycle)[tried] for cycle in range(first, first + length)], axis=1)
        found, places = self._reference.place(_bases(calls))
        self.sampled[index, number], self.aligned[index, number] = len(tried), len(found)
        return _PlacedReads(length, tried[found], places, self._reference.stops(places), np.zeros(len(found), np.int64))


@cache
def allowed_errors(length: int, *, places: int) -> int:
    """Maximum number of errors with which a read is placed, from :data:`MAX_WRONG` and :data:`MAX_FALSE_RATE`.

    Unrelated bases differ in three of four cases, so the number of errors at one place is binomial.

    Parameters
    ----------
    length : number of bases that are used to place the read.
    places : indices at which it could be placed.
    """
    chance, allowed = 0.0, 0
    for wrong in range(int(MAX_WRONG * length) + 1):
        chance += places * comb(length, wrong) * 0.75**wrong * 0.25 ** (length - wrong)
        if chance > MAX_FALSE_RATE:
            break
        allowed = wrong
    return allowed


def _bases(calls: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.where(calls == NO_CALL, UNKNOWN, calls & 3).astype(np.uint8)


def _percent(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.where(whole > 0, 100 * part / np.maximum(whole, 1), np.nan)
