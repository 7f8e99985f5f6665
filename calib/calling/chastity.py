"""Chastity, and the filter that it decides."""

import numpy as np
from numpy.typing import NDArray

CYCLES = 25
"""First cycles that decide whether a cluster passes the filter."""

LEAST_PERCENT = 60
"""A cycle below this is a failure: Illumina's filter, chastity 0.6."""

UNKNOWN = 255
"""Of a cycle that shows nothing of the cluster; no failure."""


def chastity(shares: NDArray[np.floating]) -> NDArray[np.uint8]:
    """(n,) strongest base over the sum of the two strongest, percent; :data:`UNKNOWN` where NaN.

    Parameters
    ----------
    shares : (n, 4) light of each base, corrected for cross-talk and phasing; below 0 counts as none.
    """
    second, strongest = np.sort(np.maximum(shares, 0), axis=1)[:, 2:].T
    with np.errstate(invalid="ignore"):
        percent = np.rint(100 * strongest / np.maximum(strongest + second, 1e-6))
    return np.where(np.isnan(percent), UNKNOWN, percent).astype(np.uint8)


def passes(percents: NDArray[np.uint8], *, failures_allowed: int) -> NDArray[np.bool_]:
    """(n,) which clusters pass the filter.

    Parameters
    ----------
    percents : (cycles, n) from :func:`chastity`, of the first cycles, :data:`CYCLES` at most.
    failures_allowed : cycles of them that may be less pure.
    """
    failures = (percents < LEAST_PERCENT).sum(axis=0, dtype=np.uint8)
    return np.asarray((failures <= failures_allowed) & (percents != UNKNOWN).any(axis=0))
