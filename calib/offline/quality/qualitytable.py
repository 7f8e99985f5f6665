"""Fit of weights and scores to calls whose truth is known."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit
from seqd_client.errors import SeqdError

from calib.calling.scores import predictor
from engines.bundles.bundle import QualityTable

QUANTILES = np.concatenate([np.arange(0.01, 0.1, 0.01), np.arange(0.1, 0.95, 0.05)])
"""Quantiles of the predictor that become the edges of the bins; they are denser at the low end, where errors are."""

POOLED_ABOVE = 34
"""All bins whose score is above this share one score, computed from their calls together."""

HIGHEST_SCORE = 44

BINNED: dict[Literal[12, 24, 40], int] = {40: 32, 24: 18, 12: 7}
"""The scores of binned output, highest first. Each is given to bins that have at least the score named as its value;
all other bins get 2."""

RIDGE = 1e-6


class QualityError(SeqdError):
    """Scores cannot be fitted."""

    exit_code = 3


@dataclass(frozen=True)
class KnownCalls:
    """Calls of one run whose truth is known."""

    features: NDArray[np.float32]
    """(n, features) from :func:`calib.calling.scores.features`."""
    wrong: NDArray[np.bool_]
    """(n,)"""


def fit_quality(runs: list[KnownCalls]) -> QualityTable:
    """Weights of the features by logistic regression, then scores by :func:`fit_table`.

    The weight of a run is the square root of its number of calls.

    Raises
    ------
    QualityError : there are no calls.
    """
    runs = [run for run in runs if len(run.wrong)]
    if not runs:
        raise QualityError(
            "quality: no cluster whose truth is known was called in any of the runs; no scores are fitted"
        )
    features = np.concatenate([run.features for run in runs])
    wrong = np.concatenate([run.wrong for run in runs])
    counts = np.concatenate([np.full(len(run.wrong), len(run.wrong) ** -0.5) for run in runs])
    weights = tuple(float(weight) for weight in _regression(features, wrong, counts))
    return fit_table(predictor(features, weights), wrong, counts, weights=weights)


def fit_table(
    predictors: NDArray[np.float32],
    wrong: NDArray[np.bool_],
    counts: NDArray[np.float64],
    *,
    weights: tuple[float, ...],
) -> QualityTable:
    """Phred scores: ``-10 log10`` of the error rate of each bin of the predictor.

    Scores rise with the predictor: bins whose error rates do not fall are joined (isotonic
    regression), and no bin gets a higher score than the bins above it. One error is added, so that
    few calls without an error do not give a high score. If calls have unequal weights, their number is
    Kish's effective number: the square of the sum of the weights, divided by the sum of their squares.

    Parameters
    ----------
    predictors : (n,).
    wrong : (n,) whether the call is wrong.
    counts : (n,) weight of each call; their scale does not matter.
    weights : of the features, to be stored.
    """
    # Every edge is a predictor of some call, so that only the first bin can be empty.
    edges = np.unique(np.quantile(predictors, QUANTILES, method="higher").astype(np.float32))
    index = np.searchsorted(edges, predictors, side="right")
    calls, errors, squares = (
        np.bincount(index, each, minlength=len(edges) + 1).astype(np.float64)
        for each in (counts, counts * wrong, counts**2)
    )
    # The first bin is empty if its upper edge is the smallest predictor.
    seen = errors / np.where(calls > 0, calls, 1)
    rate = isotonic_regression(seen, weights=np.maximum(calls, 1e-9), increasing=False).x
    # Each of the highest bins has very few errors. Therefore these bins share one rate, measured from all their calls.
    rate = np.where(rate < 10 ** (-POOLED_ABOVE / 10), 0, rate)
    block = np.cumsum(np.diff(rate, prepend=rate[0]) < 0)
    phred = _phred(*(np.bincount(block, each).astype(np.float64) for each in (errors, calls, squares)))[block]
    rising = np.minimum.accumulate(phred[::-1])[::-1]
    scores = np.clip(np.floor(rising), 2, HIGHEST_SCORE).astype(int)
    return QualityTable(
        weights=weights,
        edges=tuple(float(edge) for edge in edges),
        scores=tuple(int(score) for score in scores),
        binned=_binned(scores, errors, calls, squares),
    )


def _phred(
    errors: NDArray[np.float64], calls: NDArray[np.float64], squares: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Phred score of calls with these sums of weights and of squared weights, after one error is added."""
    squares = np.maximum(squares, np.finfo(np.float64).tiny)
    number = calls**2 / squares
    return np.asarray(-10 * np.log10((errors * calls / squares + 1) / (number + 1)))


def _binned(
    scores: NDArray[np.int64], errors: NDArray[np.float64], calls: NDArray[np.float64], squares: NDArray[np.float64]
) -> tuple[Literal[2, 12, 24, 40], ...]:
    """Score of each bin for binned output: the highest that the calls of this bin and of all bins above it reach
    together.
    """
    found: list[Literal[2, 12, 24, 40]] = []
    for score, least in BINNED.items():
        left = len(calls) - len(found)
        together = _phred(*(np.cumsum(each[:left][::-1]) for each in (errors, calls, squares)))
        reached = np.flatnonzero((together >= score) & (scores[:left][::-1] >= least))
        found += [score] * (int(reached[-1]) + 1 if len(reached) else 0)
    lowest: list[Literal[2, 12, 24, 40]] = [2] * (len(calls) - len(found))
    return tuple(lowest + found[::-1])


def _regression(
    features: NDArray[np.float32], wrong: NDArray[np.bool_], counts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(features,) weights of the features in the log-odds of a right call."""
    rows = np.column_stack([features, np.ones(len(features))]).astype(np.float64)
    share = counts / counts.sum()
    right = ~wrong

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        odds = rows @ weights
        missed = expit(odds) - right
        value = (share * (np.logaddexp(0, odds) - right * odds)).sum() + RIDGE * weights @ weights
        return float(value), rows.T @ (share * missed) + 2 * RIDGE * weights

    return np.asarray(minimize(loss, np.zeros(rows.shape[1]), jac=True, method="L-BFGS-B").x[:-1], np.float64)
