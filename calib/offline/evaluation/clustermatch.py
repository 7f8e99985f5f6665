"""Matching of reads with true clusters."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from calib.offline.evaluation.callers import Reads
from calib.offline.simulation.simulatedrun import Truth
from calib.runfolder.images import RunFolderError

FOUND_PX = 1.0
"""A read belongs to a true cluster if their distance is at most this."""

NO_CALL = 4
"""The base of a cycle that was not called."""

NO_READ = -1

_BASES = np.full(256, NO_CALL, np.uint8)
_BASES[list(b"ACGT")] = range(4)


@dataclass(frozen=True)
class Matched:
    """The reads of one caller and the true clusters that they belong to, of one tile or of several."""

    truth: NDArray[np.uint8]
    """(clusters, cycles) true bases 0-3."""
    neighbour_px: NDArray[np.float64]
    """(clusters,) distance to the nearest other true cluster, infinite for a lone one."""
    read_of: NDArray[np.int64]
    """(clusters,) index of a cluster's read, or ``NO_READ``; a read belongs to one cluster only."""
    bases: NDArray[np.uint8]
    """(reads, cycles) called bases 0-3, or ``NO_CALL``."""
    qualities: NDArray[np.uint8]
    """(reads, cycles) Phred scores."""

    @property
    def found(self) -> NDArray[np.bool_]:
        """(clusters,) whether a cluster has a read."""
        return np.not_equal(self.read_of, NO_READ)

    @property
    def true_bases(self) -> NDArray[np.uint8]:
        """(found, cycles) true bases of the clusters that were found, 0-3."""
        return self.truth[self.found]

    @property
    def called_bases(self) -> NDArray[np.uint8]:
        """(found, cycles) called bases of the clusters that were found, 0-3 or ``NO_CALL``."""
        return self.bases[self.read_of[self.found]]

    @property
    def called_qualities(self) -> NDArray[np.uint8]:
        """(found, cycles) Phred score of each call."""
        return self.qualities[self.read_of[self.found]]

    @property
    def called(self) -> NDArray[np.bool_]:
        """(found, cycles) whether there is a call."""
        return np.not_equal(self.called_bases, NO_CALL)

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """(found, cycles) whether a call differs from the true base; a no-call differs."""
        return np.not_equal(self.called_bases, self.true_bases)


def match(truth: Truth, reads: Reads, *, cycles: int) -> Matched:
    """Give each true cluster at most one read and each read at most one cluster, by position alone.

    Of all pairs within ``FOUND_PX`` the closest is taken first, then the closest of the remaining ones. The called
    bases do not matter. A random position is within reach of a cluster with the probability
    ``1 - exp(-pi FOUND_PX² density)``.

    Parameters
    ----------
    cycles : number of cycles to compare, the first ones of the truth.

    Raises
    ------
    RunFolderError : the truth has fewer cycles, or the reads have another number of them.
    """
    if len(truth.reads) and truth.reads.shape[1] < cycles:
        raise RunFolderError(f"truth: {truth.reads.shape[1]} cycles, the run declares {cycles}")
    if len(reads.sequences) and reads.sequences.shape[1] != cycles:
        raise RunFolderError(f"calls: {reads.sequences.shape[1]} cycles, the run declares {cycles}")
    empty = np.zeros((0, cycles), np.uint8)
    return Matched(
        truth=truth.reads[:, :cycles] if len(truth.reads) else empty,
        neighbour_px=_neighbours(truth.positions),
        read_of=_pairs(truth.positions, reads.positions),
        bases=_BASES[reads.sequences] if len(reads.sequences) else empty,
        qualities=reads.qualities if len(reads.qualities) else empty,
    )


def pooled(tiles: Sequence[Matched]) -> Matched:
    """Several tiles of a run as one."""
    first_reads = np.cumsum([0, *(len(tile.bases) for tile in tiles)])[:-1]
    return Matched(
        truth=np.concatenate([tile.truth for tile in tiles]),
        neighbour_px=np.concatenate([tile.neighbour_px for tile in tiles]),
        read_of=np.concatenate(
            [
                np.where(tile.found, tile.read_of + first, NO_READ)
                for tile, first in zip(tiles, first_reads, strict=True)
            ]
        ),
        bases=np.concatenate([tile.bases for tile in tiles]),
        qualities=np.concatenate([tile.qualities for tile in tiles]),
    )


def _pairs(truth: NDArray[np.float64], reads: NDArray[np.float64]) -> NDArray[np.int64]:
    read_of = np.full(len(truth), NO_READ, np.int64)
    if len(truth) == 0 or len(reads) == 0:
        return read_of
    near = cKDTree(truth).sparse_distance_matrix(cKDTree(reads), FOUND_PX, output_type="ndarray")
    taken = np.zeros(len(reads), bool)
    for pair in np.sort(near, order=("v", "i", "j")):
        if read_of[pair["i"]] == NO_READ and not taken[pair["j"]]:
            read_of[pair["i"]] = pair["j"]
            taken[pair["j"]] = True
    return read_of


def _neighbours(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    if len(positions) == 0:
        return np.zeros(0)
    distance, _ = cKDTree(positions).query(positions, k=2)
    return np.asarray(distance[:, 1])


def share(part: float, whole: float) -> float:
    """``part / whole``. If the whole is 0 it is NaN, so that nobody takes an unmeasured value for a measured one."""
    return float(part / whole) if whole else math.nan
