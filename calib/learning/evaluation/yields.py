"""Errors of several callers at the same yield."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calib.learning.evaluation.matching import Matched
from calib.learning.evaluation.share import share


@dataclass(frozen=True)
class ErrorCurve:
    """Wrong bases against called bases as ever worse reads are let in."""

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
    """Order the reads of the clusters found by their mean Phred score, best first, and sum up.

    No-calls keep the score they are written with in a read's mean, and count as no base. Reads with the same
    mean come together: between the ends of such a group the curve is straight, which is the expectation
    over every order of its reads.
    """
    called, wrong = matched.called.sum(axis=1), (matched.wrong & matched.called).sum(axis=1)
    total = matched.called_qualities.sum(axis=1, dtype=np.int64)
    # Every read has as many cycles, so sums order as means do, and exactly.
    _, group = np.unique(-total, return_inverse=True)
    return ErrorCurve(
        np.concatenate([[0.0], np.bincount(group, called).cumsum()]),
        np.concatenate([[0.0], np.bincount(group, wrong).cumsum()]),
    )


def equal_yield(curves: Iterable[ErrorCurve]) -> int:
    """Yield at which callers are compared: the called bases of the one that has fewest.

    A caller that finds or calls fewer bases mostly leaves out the hard ones; the others are held to their
    best reads until they have as many bases, and :meth:`ErrorCurve.error_rate` says how many of those are wrong.
    """
    return min(curve.bases for curve in curves)
