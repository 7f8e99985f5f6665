"""Error rates from a control: reads of a known sequence that was put on the flow cell with the samples."""

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
from daemon.outputs.figures.cyclefigures import RunMetrics

LENGTHS = (25, 50, 100, 150, 200, 300)
"""Cycles of a read that it is placed by: the most of these that are committed, and that a sequence of the control has;
the same cycles give the same.

A read that ends before the second of them is placed by all of its cycles then.
"""

MOST_CLUSTERS = 50_000
"""Of a tile and read that are tried, evenly spaced among those that pass the filter."""

MOST_WRONG = 0.3
"""Share of the bases that it is placed by that may be wrong in a read of the control.

Reads of mixed clusters are the control's too, and their errors are errors.
"""

CHANCE = 1e-5
"""Of a read of anything else to be taken for the control's; by few bases fewer may be wrong for that."""

SHORT_READ = 50
"""Bases up to which a read needs shorter seeds to be found with errors in it."""


class ControlError(SeqdError):
    """The FASTA file of a control cannot be read, or no read can be placed on it."""

    exit_code: ClassVar[int] = 3


class ControlReference:
    """The sequences of a control, both strands of each.

    Parameters
    ----------
    path : FASTA, plain or gzip.

    Raises
    ------
    ControlError : it cannot be read, is not FASTA, names a sequence twice, or has none that a read can be placed on.
    """

    def __init__(self, path: Path) -> None:
        try:
            sequences = read_fasta(path, kind="control")
        except FastaError as error:
            raise ControlError(str(error)) from error
        # Every k-mer is a seed (w=1) and one is enough, or an error amid a short read would hide it, and be missed.
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
            raise ControlError(
                f"control {path}: no sequence has {LENGTHS[0]} bases, the fewest that a read is placed by"
            )
        self.bases = np.concatenate(strands)
        """(n,) 0-3 or :data:`UNKNOWN`: each sequence, then its other strand in the order in which it is read."""
        self._stops = np.cumsum([len(strand) for strand in strands])

    def place(self, reads: NDArray[np.uint8]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Which reads are of the control, and the index of each one's first base in :attr:`bases`.

        Gaps are not allowed, nor reads that reach beyond a sequence's end.

        Parameters
        ----------
        reads : (n, length) 0-3, or :data:`UNKNOWN`, which counts as wrong.
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
        best = best[wrong[best] <= most_wrong(length, places=len(self.bases))]
        return numbers[best], places[best]

    def stops(self, places: NDArray[np.intp]) -> NDArray[np.intp]:
        """Index after the last base of the strand that each place is on."""
        return np.asarray(self._stops[np.searchsorted(self._stops, places, side="right")], np.intp)


@dataclass
class _Placed:
    """The reads of a tile that are of the control."""

    length: int
    """Cycles that they were placed by."""
    clusters: NDArray[np.intp]
    places: NDArray[np.intp]
    stops: NDArray[np.intp]
    wrong: NDArray[np.int64]
    """Errors of each up to the last cycle compared."""
    compared: int = 0
    """Cycles of the read."""


class ControlErrors:
    """Errors in the reads of a control, kept as far as they are known; the same for the same committed cycles.

    Bases are compared with the control's one by one from the read's first, without gaps; no-calls are not compared.
    Reads of the template are, those of the index are not.
    """

    def __init__(
        self, metrics: RunMetrics, control: ControlReference, worked: Callable[[], None] = lambda: None
    ) -> None:
        self._metrics, self._control = metrics, control
        tiles, cycles = len(metrics.info.tiles), metrics.info.cycles
        self.sampled = np.zeros((tiles, len(metrics.info.reads)), np.int64)
        """(tiles, reads) clusters that were tried; 0 until :data:`LENGTHS`' first is committed."""
        self.aligned = np.zeros_like(self.sampled)
        """(tiles, reads) of them that are of the control."""
        self.compared = np.zeros((tiles, cycles), np.int64)
        """(tiles, cycles) bases of the control's reads."""
        self.wrong = np.zeros_like(self.compared)
        """(tiles, cycles) of them that are not the control's."""
        self.reads_by_errors = np.zeros((tiles, cycles, 5), np.uint32)
        """(tiles, cycles, 5) reads with none, one, two, three, four errors from their first cycle to this one."""
        self._placed: dict[tuple[TileId, Read], _Placed] = {}
        self.update(worked)

    @property
    def percent_aligned(self) -> NDArray[np.float64]:
        """(tiles, reads) of the clusters that pass the filter, as far as they were tried; NaN where none was."""
        return _percent(self.aligned, self.sampled)

    @property
    def percent_wrong(self) -> NDArray[np.float64]:
        """(tiles, cycles) error rates; NaN where nothing was compared."""
        return _percent(self.wrong, self.compared)

    def update(self, worked: Callable[[], None] = lambda: None) -> None:
        """Take in what the metrics were updated with.

        Parameters
        ----------
        worked : called now and then, so that who waits sees progress.
        """
        info = self._metrics.info
        for number, read in enumerate(info.reads):
            cycles = info.cycles_of(read)
            for index, tile in enumerate(info.tiles):
                known = min(int(self._metrics.counted[index]) - cycles.start + 1, read.cycles)
                if not read.index and known >= LENGTHS[0]:
                    self._compare(index, tile, number, read, known)
                    worked()

    def _compare(self, index: int, tile: TileId, number: int, read: Read, known: int) -> None:
        first = self._metrics.info.cycles_of(read).start
        lengths = (*LENGTHS, read.cycles) if read.cycles < LENGTHS[1] else LENGTHS
        length = max(one for one in lengths if one <= min(known, self._control.longest))
        placed = self._placed.get((tile, read))
        if placed is None or placed.length != length:
            placed = self._place(index, tile, number, first, length)
            self._placed[tile, read] = placed
        for cycle in range(first + placed.compared, first + known):
            bases = _bases(self._metrics.run.calls(tile, cycle)[placed.clusters])
            at = placed.places + (cycle - first)
            inside = at < placed.stops
            expected = self._control.bases[np.where(inside, at, 0)]
            compared = inside & (expected != UNKNOWN) & (bases != UNKNOWN)
            wrong = compared & (bases != expected)
            placed.wrong += wrong
            self.compared[index, cycle - 1] = np.count_nonzero(compared)
            self.wrong[index, cycle - 1] = np.count_nonzero(wrong)
            self.reads_by_errors[index, cycle - 1] = np.bincount(placed.wrong, minlength=5)[:5]
            # Cycle by cycle: one that cannot be read is gone on from.
            placed.compared = cycle - first + 1

    def _place(self, index: int, tile: TileId, number: int, first: int, length: int) -> _Placed:
        run = self._metrics.run
        passing = np.flatnonzero(run.passing(tile))
        tried = passing[
            np.arange(min(len(passing), MOST_CLUSTERS)) * len(passing) // max(1, min(len(passing), MOST_CLUSTERS))
        ]
        calls = np.stack([run.calls(tile, cycle)[tried] for cycle in range(first, first + length)], axis=1)
        of, places = self._control.place(_bases(calls))
        self.sampled[index, number], self.aligned[index, number] = len(tried), len(of)
        return _Placed(length, tried[of], places, self._control.stops(places), np.zeros(len(of), np.int64))


@cache
def most_wrong(length: int, *, places: int) -> int:
    """Errors up to which a read is of the control: as :data:`MOST_WRONG` and :data:`CHANCE` allow.

    Of bases that have nothing to do with each other, three of four differ; so errors at one place are binomial.
    """
    chance, most = 0.0, 0
    for wrong in range(int(MOST_WRONG * length) + 1):
        chance += places * comb(length, wrong) * 0.75**wrong * 0.25 ** (length - wrong)
        if chance > CHANCE:
            break
        most = wrong
    return most


def _bases(calls: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.where(calls == NO_CALL, UNKNOWN, calls & 3).astype(np.uint8)


def _percent(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.where(whole > 0, 100 * part / np.maximum(whole, 1), np.nan)
