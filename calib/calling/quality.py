"""Phred scores: what a call shows of its own certainty, and the table that turns it into a score."""

import numpy as np
from numpy.typing import NDArray

from calib.calling.chastity import UNKNOWN
from engines.bundle import QualityTable

NO_CALL = 0
"""The byte of a cluster that was not called."""

MARGIN_MOST = 14.0
"""Evidence for a call, in natural logarithms, beyond which more says nothing."""


def features(
    evidence: NDArray[np.float64], purity: NDArray[np.uint8], crowding: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(n, 6) what the error rate of a call depends on; see :class:`engines.bundle.QualityTable` for the weights.

    The distance between the two likeliest bases, in tens of natural logarithms, and its square;
    the logarithm of how impure the cluster has been in the run's first cycles and in those
    around the call; the logarithm of the neighbours' light over the cluster's own; and the
    distance times each of the two.

    Parameters
    ----------
    evidence : (n, 4) from :func:`calib.calling.evidence.log_evidence`.
    purity : (k, n) chastity, percent.
    crowding : (n,) light of other clusters, relative to the cluster's own.
    """
    second, best = np.sort(np.nan_to_num(evidence), axis=1)[:, 2:].T
    margin = np.minimum(best - second, MARGIN_MOST) / 10
    known = purity != UNKNOWN
    impurity = np.where(known, 1 - purity / 100, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    impure, crowded = np.log(impurity + 0.02), np.log(crowding + 0.1)
    columns = (margin, margin**2, impure, crowded, margin * impure, margin * crowded)
    return np.stack(columns, axis=1).astype(np.float32)


def predictor(described: NDArray[np.float32], weights: tuple[float, ...]) -> NDArray[np.float32]:
    """(n,) the sum of the features by their weights: rises with certainty."""
    return np.asarray(described @ np.array(weights, np.float32), np.float32)


def scores(described: NDArray[np.float32], table: QualityTable) -> NDArray[np.uint8]:
    """(n,) Phred scores, at least 2."""
    bins = np.searchsorted(np.asarray(table.edges, np.float32), predictor(described, table.weights), side="right")
    return np.asarray(table.scores, np.uint8)[bins]


def binned(table: QualityTable) -> QualityTable:
    """The same table with the scores of binned output."""
    return table.model_copy(update={"scores": table.binned})
