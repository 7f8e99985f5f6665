"""Predicted against empirical quality."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calib.offline.evaluation.clustermatch import Matched

JUDGED_BASES = 2000
JUDGED_ERRORS = 5
"""A bin is compared if it has at least this many bases and this many errors, expected or seen."""


@dataclass(frozen=True)
class Calls:
    """Called bases of the clusters found, as flat arrays."""

    cycles: NDArray[np.int64]
    """(n,) 1-based."""
    qualities: NDArray[np.uint8]
    """(n,) Phred scores."""
    wrong: NDArray[np.bool_]
    """(n,)"""


@dataclass(frozen=True)
class Bin:
    """Called bases of one quality value, or of one cycle."""

    value: int
    """The quality value, or the 1-based cycle."""
    bases: int
    wrong: int
    predicted: float
    """Mean of the error probabilities that correspond to the scores, as a Phred score."""
    empirical: float
    """Phred score of the observed error rate, after one error is added: ``-10 log10((wrong + 1) / (bases + 1))``."""
    judged: bool
    """Whether there are enough bases and errors."""


@dataclass(frozen=True)
class Calibration:
    """How far scores can be trusted."""

    bins: tuple[Bin, ...]
    mean_deviation: float
    """Mean \\|predicted - empirical\\| over the judged bins, Phred; NaN if no bin is judged."""
    worst_overstatement: float
    """Largest predicted - empirical of the bins judged, Phred; negative where all are understated."""


def calls_of(matched: Matched) -> Calls:
    """Called bases of the clusters found."""
    called = matched.called
    return Calls(np.nonzero(called)[1] + 1, matched.called_qualities[called], matched.wrong[called])


def joined(parts: Sequence[Calls]) -> Calls:
    """Calls of several runs as one."""
    return Calls(
        np.concatenate([part.cycles for part in parts]),
        np.concatenate([part.qualities for part in parts]),
        np.concatenate([part.wrong for part in parts]),
    )


def by_quality(calls: Calls) -> Calibration:
    """Calibration in bins of one quality value each."""
    return _calibration(calls.qualities.astype(np.int64), calls)


def by_cycle(calls: Calls) -> Calibration:
    """Calibration in bins of one cycle each."""
    return _calibration(calls.cycles, calls)


def _calibration(values: NDArray[np.int64], calls: Calls) -> Calibration:
    bases = np.bincount(values)
    wrong = np.bincount(values, calls.wrong)
    expected = np.bincount(values, 10 ** (-calls.qualities.astype(np.float64) / 10))
    bins = tuple(
        Bin(
            value=int(value),
            bases=int(bases[value]),
            wrong=int(wrong[value]),
            predicted=-10 * math.log10(expected[value] / bases[value]),
            empirical=-10 * math.log10(min(1.0, (wrong[value] + 1) / (bases[value] + 1))),
            judged=bool(bases[value] >= JUDGED_BASES and max(expected[value], wrong[value]) >= JUDGED_ERRORS),
        )
        for value in np.flatnonzero(bases)
    )
    excess = [one.predicted - one.empirical for one in bins if one.judged]
    return Calibration(
        bins=bins,
        mean_deviation=sum(map(abs, excess)) / len(excess) if excess else math.nan,
        worst_overstatement=max(excess, default=math.nan),
    )
