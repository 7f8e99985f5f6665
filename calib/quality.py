"""From evidence at a cluster to a call and its Phred score."""

import numpy as np
from numpy.typing import NDArray

from engines.bundle import QualityTable

EVIDENCE_FLOOR = 0.05
"""Evidence that a position shows without any cluster: keeps faint clusters from looking certain."""

NO_CALL = 0
"""The byte of a cluster that was not called."""

QUANTILES = np.append(np.arange(0.05, 0.825, 0.05), 0.9)
"""Shares of the calls below the bins' edges; the best bins are wide, since only many calls prove a high score."""


def predictor(centres: NDArray[np.float32]) -> NDArray[np.float32]:
    """Share of the strongest base in the evidence; what the quality table is indexed by.

    Parameters
    ----------
    centres : (n, 4) from :func:`engines.readout.read_centres`.

    Returns
    -------
    (n,) in [0, 1).
    """
    return np.asarray(centres.max(axis=1) / (centres.sum(axis=1) + EVIDENCE_FLOOR), np.float32)


def call(centres: NDArray[np.float32], table: QualityTable) -> NDArray[np.uint8]:
    """Bytes ``(Q << 2) | base`` of every cluster; called bases have Q >= 2.

    A cluster without any evidence lies outside the image and is a no-call, 0.
    """
    scores = np.asarray(table.scores, np.uint8)
    bins = np.searchsorted(np.asarray(table.edges, np.float32), predictor(centres), side="right")
    calls = (scores[bins] << 2) | np.argmax(centres, axis=1).astype(np.uint8)
    # Evidence that is not a number compares false, and so is no call either.
    return np.where(centres.sum(axis=1) > 0, calls, np.uint8(NO_CALL)).astype(np.uint8)


def fit_table(predictors: NDArray[np.float32], wrong: NDArray[np.bool_], *, cap: int = 40) -> QualityTable:
    """Phred scores from calls whose truth is known: ``-10 log10`` of the error rate of each bin.

    Scores are made to rise with the predictor by lowering those
    that stand above a later one. One error is added to every bin, so that a score is never above
    what its number of calls can show.

    Parameters
    ----------
    predictors : (n,) from :func:`predictor`.
    wrong : (n,) whether the call is wrong.
    cap : highest score given.
    """
    # Edges that are predictors themselves leave no bin but the first empty.
    edges = np.unique(np.quantile(predictors, QUANTILES, method="higher").astype(np.float32))
    index = np.searchsorted(edges, predictors, side="right")
    calls = np.bincount(index, minlength=len(edges) + 1)
    errors = np.bincount(index, wrong, minlength=len(edges) + 1)
    phred = -10 * np.log10(np.minimum((errors + 1) / (calls + 1), 1))
    rising = np.minimum.accumulate(phred[::-1])[::-1]
    scores = np.clip(np.floor(rising), 2, cap).astype(int)
    return QualityTable(edges=tuple(float(edge) for edge in edges), scores=tuple(int(score) for score in scores))
