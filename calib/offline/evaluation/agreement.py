"""How many clusters are found, and how well they are read."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from seqd_client.runinfo import TileId

from calib.offline.evaluation.callers import Reads
from calib.offline.evaluation.clustermatch import NO_CALL, Matched, match, share
from calib.offline.simulation.simulatedrun import read_truth
from calib.runfolder.images import read_run_info

MAX_WRONG = 0.05
"""Share of wrong bases up to which a read counts as right."""

LAST_CYCLES = 10
"""Cycles at the end of a read, where phasing and decay cause most errors."""

Q30 = 30


@dataclass(frozen=True)
class Agreement:
    """Comparison of reads with the truth. A share of nothing is NaN."""

    clusters: int
    """True clusters."""
    reads: int
    found: float
    """Share of true clusters that have a read; each read counts for one cluster only."""
    yielded: float
    """Share of true clusters found and read with at most ``MAX_WRONG`` wrong bases."""
    real: float
    """Precision: share of reads that belong to a true cluster; each cluster counts for one read only."""
    error_rate: float
    """Wrong bases and no-calls over all bases of the clusters found."""
    called_error_rate: float
    """Wrong bases over called bases of the clusters found."""
    last_error_rate: float
    """As ``error_rate``, over the last ``LAST_CYCLES`` cycles."""
    no_calls: float
    """Share of no-calls in the bases of all reads."""
    q30: float
    """Share of called bases with Q >= 30, of all reads."""


def agreement(matched: Matched) -> Agreement:
    """Compute the figures of one caller."""
    found, wrong, called = matched.found, matched.wrong, matched.called
    right = wrong.mean(axis=1) <= MAX_WRONG
    last = wrong[:, -LAST_CYCLES:]
    calls = matched.bases != NO_CALL
    return Agreement(
        clusters=len(found),
        reads=len(calls),
        found=share(found.sum(), len(found)),
        yielded=share(right.sum(), len(found)),
        real=share(found.sum(), len(calls)),
        error_rate=share(wrong.sum(), wrong.size),
        called_error_rate=share((wrong & called).sum(), called.sum()),
        last_error_rate=share(last.sum(), last.size),
        no_calls=share((~calls).sum(), calls.size),
        q30=share((calls & (matched.qualities >= Q30)).sum(), calls.sum()),
    )


def compare(root: Path, tile: TileId, reads: Reads) -> Agreement:
    """Compare the reads of a tile with the truth beside its images.

    Raises
    ------
    RunFolderError : the folder has no truth, or its truth has another number of cycles.
    """
    cycles = read_run_info(root).reads[0].cycles
    return agreement(match(read_truth(root, tile), reads, cycles=cycles))


@dataclass(frozen=True)
class ErrorCurve:
    """Number of wrong bases as a function of the number of called bases, when reads are added from best to worst."""

    called: NDArray[np.float64]
    """(k,) called bases so far, from 0, rising."""
    wrong: NDArray[np.float64]
    """(k,) wrong ones among them."""

    @property
    def bases(self) -> int:
        """Called bases of all reads: the caller's full yield."""
        return int(self.called[-1])

    def error_rate(self, bases: float) -> float:
        """Errors per called base of the best reads that make up ``bases`` called bases; NaN for 0."""
        return share(float(np.interp(bases, self.called, self.wrong)), bases)


def error_curve(matched: Matched) -> ErrorCurve:
    """Order the reads of the clusters found by their mean Phred score, best first, and add up their bases.

    In the mean, a no-call counts with the score it is written with; it does not count as a called base. Reads with
    the same mean are added as one group. Within a group the curve is a straight line, because this is the mean of the
    curves for all orders of its reads.
    """
    called, wrong = matched.called.sum(axis=1), (matched.wrong & matched.called).sum(axis=1)
    total = matched.called_qualities.sum(axis=1, dtype=np.int64)
    # All reads have the same number of cycles, so that sums of integers give the order of the means exactly.
    _, group = np.unique(-total, return_inverse=True)
    return ErrorCurve(
        np.concatenate([[0.0], np.bincount(group, called).cumsum()]),
        np.concatenate([[0.0], np.bincount(group, wrong).cumsum()]),
    )


def equal_yield(curves: Iterable[ErrorCurve]) -> int:
    """Yield at which callers are compared: the smallest number of called bases of any caller.

    A caller that finds or calls fewer bases mostly leaves out the hard ones; the others are reduced to their
    best reads until they have as many bases, and :meth:`ErrorCurve.error_rate` says how many of those are wrong.
    """
    return min(curve.bases for curve in curves)
