"""Chastity with the filter, and the Phred scores of calls.

``docs/benchmarks/template-constants.md`` shows how much each constant in :func:`features` changes the calls.
"""

import numpy as np
from numpy.typing import NDArray

from engines.bundles.bundle import QualityTable

CYCLES = 25
"""Number of first cycles that decide whether a cluster passes the filter."""

MIN_PERCENT = 60
"""A cycle with a lower chastity is a failure. Illumina's filter has the same limit, a chastity of 0.6."""

UNKNOWN = 255
"""Chastity of a cycle without light of the cluster; it is no failure."""


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


def passes_filter(percents: NDArray[np.uint8], *, failures_allowed: int) -> NDArray[np.bool_]:
    """(n,) which clusters pass the filter.

    Parameters
    ----------
    percents : (cycles, n) from :func:`chastity`, of the first cycles, :data:`CYCLES` at most.
    failures_allowed : number of these cycles that may have a chastity below :data:`MIN_PERCENT`.
    """
    failures = (percents < MIN_PERCENT).sum(axis=0, dtype=np.uint8)
    return np.asarray((failures <= failures_allowed) & (percents != UNKNOWN).any(axis=0))


NO_CALL = 0
"""The byte of a cluster that was not called."""

MAX_MARGIN = 14.0
"""Largest distance between the two likeliest bases, in natural logarithms; larger distances are reduced to it. It
corresponds to an error rate of 1e-6, which is lower than the highest score states."""

IMPURITY_FLOOR, CROWDING_FLOOR = 0.02, 0.1
"""These are added before the logarithm, so that the feature is finite for a cluster without impurity or neighbours."""


def features(
    evidence: NDArray[np.float64], purity: NDArray[np.uint8], crowding: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(n, 6) features that the error rate of a call depends on; their weights are in the bundle's quality table.

    With d the distance between the two likeliest bases, in tens of natural logarithms, p the logarithm of the
    cluster's mean impurity (1 - chastity) over the cycles of ``purity``, and c the logarithm of ``crowding``, the
    features are d, d², p, c, d p and d c.

    Parameters
    ----------
    evidence : (n, 4) from :func:`calib.calling.signals.log_evidence`.
    purity : (k, n) chastity, percent, of the run's first cycles, the cycle that is called and the cycles after it.
    crowding : (n,) light of other clusters, relative to the cluster's own.
    """
    second, best = np.sort(np.nan_to_num(evidence), axis=1)[:, 2:].T
    margin = np.minimum(best - second, MAX_MARGIN) / 10
    known = purity != UNKNOWN
    impurity = np.where(known, 1 - purity / 100, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    impure, crowded = np.log(impurity + IMPURITY_FLOOR), np.log(crowding + CROWDING_FLOOR)
    columns = (margin, margin**2, impure, crowded, margin * impure, margin * crowded)
    return np.stack(columns, axis=1).astype(np.float32)


def predictor(described: NDArray[np.float32], weights: tuple[float, ...]) -> NDArray[np.float32]:
    """(n,) sum of the features multiplied by their weights; it rises with certainty."""
    return np.asarray(described @ np.array(weights, np.float32), np.float32)


def scores(described: NDArray[np.float32], table: QualityTable) -> NDArray[np.uint8]:
    """(n,) Phred scores, at least 2."""
    bins = np.searchsorted(np.asarray(table.edges, np.float32), predictor(described, table.weights), side="right")
    return np.asarray(table.scores, np.uint8)[bins]


def binned(table: QualityTable) -> QualityTable:
    """The same table with the scores of binned output."""
    return table.model_copy(update={"scores": table.binned})
