"""What a cycle would show if all strands of a cluster were in step."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calib.phasing import Phasing, strands

AHEAD = 2
"""Cycles after a cycle that are read before it is called."""

BACK = 8
"""Cycles before a cycle whose strands may still show: 4 in 10,000 are farther back when half are out of step."""

RIDGE = 0.1
"""Ridge of the solution, which is drawn to all bases alike."""


@dataclass(frozen=True)
class InPhase:
    """One cycle after correction."""

    shares: NDArray[np.float64]
    """(n, 4) light of each base; NaN for a cluster that the cycle does not show."""
    variance_factor: float
    """Variance of the shares, relative to that before."""


def in_phase(
    shares: NDArray[np.floating],
    later: Sequence[NDArray[np.floating] | None],
    earlier: NDArray[np.floating],
    *,
    cycle: int,
    phasing: Phasing,
) -> InPhase:
    """Take off what strands out of step show.

    What strands that fell behind show is known from the calls before and subtracted; what strands
    that ran ahead show is solved for, together with the cycle's own base, from the cycles after.

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
