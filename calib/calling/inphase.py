"""Correction for phasing: the light of a cycle as if no strand had fallen behind or run ahead."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calib.phasing import Phasing, strands

AHEAD = 2
"""Number of later cycles that the call of a cycle needs."""

BACK = 8
"""The correction covers this number of earlier cycles. When half of the strands are behind, 4 in 10,000 strands are
more than this number of cycles behind."""

RIDGE = 0.1
"""Weight of the ridge, which draws the solution towards equal light of all bases."""


@dataclass(frozen=True)
class InPhase:
    """One cycle after correction."""

    shares: NDArray[np.float64]
    """(n, 4) light of each base; NaN for a cluster that the cycle does not show."""
    variance_factor: float
    """Variance of the corrected shares, relative to that of the shares before the correction."""


def correct_phasing(
    shares: NDArray[np.floating],
    later: Sequence[NDArray[np.floating] | None],
    earlier: NDArray[np.floating],
    *,
    cycle: int,
    phasing: Phasing,
) -> InPhase:
    """Correct one cycle for the strands that are out of step.

    Strands that fell behind show bases that are called already; their light is subtracted. Strands that ran
    ahead show bases of the later cycles; these and the cycle's own base are solved for together.

    Parameters
    ----------
    shares : (n, 4) light of each base in the cycle.
    later : the same of the cycles after it, None where a cycle is missing.
    earlier : (k, n, 4) probability of each base in the k cycles before it.
    cycle : 1-based, in the read.
    """
    first = cycle - 1
    shown = strands(cycles=cycle + len(later) + BACK, phasing=phasing)
    known, unknown = slice(first - len(earlier), first), slice(first, first + 1 + len(later))
    mixing, left = [], []
    for step, reading in enumerate([shares, *later]):
        if reading is None:
            continue
        # Shares are in units of the light of the strands in step.
        row = shown[first + step] / shown[first + step, first + step]
        past = np.einsum("k,knb->nb", row[known], earlier)
        elsewhere = row.sum() - row[known].sum() - row[unknown].sum()
        mixing.append(row[unknown])
        left.append(np.nan_to_num(reading, nan=0.25) - past - elsewhere / 4)
    mixed = np.array(mixing)
    solution = np.linalg.solve(mixed.T @ mixed + RIDGE * np.eye(mixed.shape[1]), np.eye(mixed.shape[1]))[0]
    weights = mixed @ solution
    corrected = np.einsum("s,snb->nb", weights, np.array(left)) + RIDGE * solution.sum() / 4
    corrected[np.isnan(shares).any(axis=1)] = np.nan
    return InPhase(corrected, float(weights @ weights))
