"""Finding the sample of each cluster: its index reads are compared with the barcodes of the samples."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from seqd_client.runinfo import RunInfo

from calib.calling.scores import NO_CALL
from daemon.outputs.samples.samples import BclConvert, Picard, Sample, SampleError, Samples

UNDETERMINED = -1

BASES = np.arange(4, dtype=np.uint8)
UNCALLED, LOW_QUALITY = 4, 5
"""Codes of a no-call, and of a call whose quality is too low; bases have 0-3."""

BLOCK = 1 << 22
"""Pairs of a cluster and a barcode that are compared at a time."""


@dataclass(frozen=True)
class Match:
    """Samples of clusters."""

    sample: NDArray[np.int32]
    """(n,) index into :attr:`Demultiplexer.names`, or :data:`UNDETERMINED`."""
    mismatches: NDArray[np.int32]
    """(n,) mismatches with the sample's barcode, over all index reads; 0 where undetermined."""


class Demultiplexer:
    """Finds the sample of clusters by their index reads.

    Barcodes that are shorter than the index read are compared with its first cycles. Several threads may use it at
    once. The sample of a cluster does not depend on the clusters that are matched in the same call.
    """

    def __init__(self, samples: Samples, info: RunInfo) -> None:
        """
        Raises
        ------
        SampleError : the samples do not fit the run, or two barcodes are too similar for the samples' rule.
        """
        self.names = samples.names
        """Names of the samples, in the order of the samples file."""
        self.samples = samples
        index_reads = [read.cycles for read in info.reads if read.index]
        if not index_reads:
            raise SampleError(f"samples {samples.source}: run {info.run} has no index reads")
        lanes = sorted({tile.lane for tile in info.tiles})
        for sample in samples.samples:
            if sample.lane not in (None, *lanes):
                raise SampleError(
                    f"samples {samples.source}: sample {sample.name!r} is in lane {sample.lane}, "
                    f"the run has {', '.join(map(str, lanes))}"
                )
        self.lanes = {lane: LaneBarcodes(samples, lane, index_reads) for lane in lanes}

    def names_in(self, lane: int) -> frozenset[str]:
        """Names of a lane's samples."""
        return frozenset(sample.name for sample in self.lanes[lane].declared)

    def __call__(self, lane: int, calls: NDArray[np.uint8]) -> NDArray[np.int32]:
        """(n,) index into :attr:`names` of each cluster, or :data:`UNDETERMINED`; see :meth:`match`."""
        return self.match(lane, calls).sample

    def match(self, lane: int, calls: NDArray[np.uint8]) -> Match:
        """Match clusters of a lane.

        Parameters
        ----------
        calls : (index cycles, n) bytes ``(Q << 2) | base``, 0 = no-call, of all index reads in the run's order.
        """
        barcodes = self.lanes[lane]
        rule = self.samples.rule
        minimum = rule.minimum_base_quality if isinstance(rule, Picard) else 0
        codes = np.where(calls >> 2 < minimum, np.uint8(LOW_QUALITY), calls & 3)
        codes[calls == NO_CALL] = UNCALLED
        # Most clusters have one of a few sequences: each distinct sequence is compared once.
        first, which = _distinct(np.concatenate([codes[part] for part in barcodes.parts]))
        found = [barcodes.nearest(block, rule) for block in _blocks(codes[:, first], len(barcodes.declared))]
        nearest, mismatches = (np.concatenate(parts) for parts in zip(*found, strict=True))
        samples = np.append(barcodes.samples, UNDETERMINED).astype(np.int32)
        return Match(samples[nearest][which], mismatches[which])


class LaneBarcodes:
    """The barcodes of a lane."""

    def __init__(self, samples: Samples, lane: int, index_reads: Sequence[int]) -> None:
        self.declared = tuple(sample for sample in samples.samples if sample.lane in (None, lane))
        """The lane's samples, one for each barcode."""
        names = {name: index for index, name in enumerate(samples.names)}
        self.samples = np.array([names[sample.name] for sample in self.declared], np.int32)
        where = f"samples {samples.source}: lane {lane}"
        lengths = _lengths(where, self.declared, index_reads)
        starts = np.cumsum([0, *index_reads])
        self.parts = tuple(
            slice(start, start + length) for start, length in zip(starts.tolist(), lengths, strict=False) if length
        )
        """The index cycles that are compared, for each index read that has barcodes."""
        codes = np.zeros((sum(index_reads), len(self.declared)), np.uint8)
        for column, sample in enumerate(self.declared):
            for start, barcode in zip(starts.tolist(), sample.barcodes, strict=False):
                codes[start : start + len(barcode), column] = ["ACGT".index(base) for base in barcode]
        self._tables = [_one_hot(codes[part]) for part in self.parts]
        self._check(where, codes, samples.rule)

    def nearest(
        self, codes: NDArray[np.uint8], rule: Picard | BclConvert
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """(n,) index of the barcode that the rule finds, or -1, and (n,) mismatches with it.

        Parameters
        ----------
        codes : (index cycles, n) bases, :data:`UNCALLED` or :data:`LOW_QUALITY`.
        """
        if not self.declared:
            return np.full(codes.shape[1], -1), np.zeros(codes.shape[1], np.int32)
        distances = self._distances(codes)
        match rule:
            case Picard():
                uncalled = np.sum([np.count_nonzero(codes[part] == UNCALLED, axis=0) for part in self.parts], axis=0)
                nearest, best, second = _two_smallest(np.sum(distances, axis=0))
                clear = second - best >= rule.min_mismatch_delta
                best = best - uncalled
                found = clear & (best <= rule.max_mismatches) & (uncalled <= rule.max_no_calls)
            case BclConvert():
                total = np.sum(distances, axis=0)
                near = _within(distances, rule, times=1)
                nearest = near.argmax(axis=1)
                best = total[np.arange(len(total)), nearest]
                found = near.any(axis=1)
        return np.where(found, nearest, -1), np.where(found, best, 0).astype(np.int32)

    def _distances(self, codes: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """For each index read, (n, barcodes) number of cycles whose base is not that of the barcode."""
        return [
            np.float32(part.stop - part.start) - _one_hot(codes[part]).T @ table
            for part, table in zip(self.parts, self._tables, strict=True)
        ]

    def _check(self, where: str, codes: NDArray[np.uint8], rule: Picard | BclConvert) -> None:
        """Refuse equal barcodes, and those that bcl-convert's rule could not tell apart."""
        start = 0
        for block in _blocks(codes, len(self.declared)):
            distances = self._distances(block)
            same = np.sum(distances, axis=0) == 0
            near = _within(distances, rule, times=2) if isinstance(rule, BclConvert) else same
            # The triangle below the diagonal has each pair once, and no barcode with itself.
            pairs = np.argwhere(np.tril(near, k=start - 1))
            if len(pairs):
                late, early = pairs[0]
                one, other = self.declared[early], self.declared[start + late]
                raise SampleError(
                    f"{where}: samples {one.name!r} and {other.name!r} both have {one.barcode}"
                    if same[late, early]
                    else f"{where}: {one.barcode} of {one.name!r} and {other.barcode} of {other.name!r} are too "
                    f"similar for the mismatches allowed, {rule}"
                )
            start += block.shape[1]


def _lengths(where: str, declared: Sequence[Sample], index_reads: Sequence[int]) -> tuple[int, ...]:
    """Number of cycles of each index read that are compared."""
    if not declared:
        return (index_reads[0],)
    lengths = tuple(map(len, declared[0].barcodes))
    for sample in declared:
        for number, barcode in enumerate(sample.barcodes):
            longest = index_reads[number] if number < len(index_reads) else 0
            if len(barcode) > longest:
                raise SampleError(
                    f"{where}: sample {sample.name!r}: barcode {barcode} has {len(barcode)} bases, "
                    f"index read {number + 1} of the run has {longest}"
                )
            if len(barcode) != lengths[number]:
                raise SampleError(
                    f"{where}: barcode {number + 1} of {sample.name!r} has {len(barcode)} bases, but that of "
                    f"{declared[0].name!r} has {lengths[number]}; all barcodes of a lane need the same length"
                )
    return lengths


def _distinct(codes: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the distinct columns, like ``np.unique`` but faster.

    Returns the index at which each distinct column first occurs, and for every column the number of the distinct column
    that it equals.
    """
    which = np.zeros(codes.shape[1], np.uint64)
    for start in range(0, len(codes), 10):
        # Ten cycles take 30 bits; the higher bits hold the number of the column among those distinct so far.
        for cycle in codes[start : start + 10]:
            which = which << np.uint64(3) | cycle
        if start + 10 < len(codes):
            which = np.unique(which, return_inverse=True)[1].astype(np.uint64)
    _, first, inverse = np.unique(which, return_index=True, return_inverse=True)
    return first, inverse


def _blocks(codes: NDArray[np.uint8], barcodes: int) -> Iterator[NDArray[np.uint8]]:
    """The columns in blocks that take little memory when they are compared with the barcodes; at least one block."""
    step = max(1, BLOCK // max(1, barcodes))
    for start in range(0, max(1, codes.shape[1]), step):
        yield codes[:, start : start + step]


def _one_hot(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(4 × cycles, n) array: each cycle has four rows, and the row of the cycle's base is 1."""
    shown: NDArray[np.float32] = (codes[:, None] == BASES[:, None]).astype(np.float32)
    return shown.reshape(4 * len(codes), codes.shape[1])


def _two_smallest(total: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """Index and value of the smallest value in each row, and the second smallest value.

    The second smallest value is infinite in rows with a single value.
    """
    rows = np.arange(len(total))
    nearest = total.argmin(axis=1)
    best = total[rows, nearest]
    total[rows, nearest] = np.inf
    return nearest, best, total.min(axis=1)


def _within(distances: Sequence[NDArray[np.float32]], rule: BclConvert, *, times: int) -> NDArray[np.bool_]:
    """(n, barcodes) whether every index read has at most the mismatches that the rule allows, times a factor."""
    allowed = (rule.index1, rule.index2)
    return np.asarray(np.all([d <= times * most for d, most in zip(distances, allowed, strict=False)], axis=0))
