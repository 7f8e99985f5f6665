"""Phasing and prephasing: strands of a cluster that fall behind or run ahead, estimated and undone."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST = 0.05
"""No chemistry worth reading loses more than this share of strands a cycle."""

FEWEST_CYCLES = 10
"""Shorter reads show nothing that grows."""

ROUNDS = 4


@dataclass(frozen=True)
class Phasing:
    """Shares of the strands that slip in each cycle."""

    behind: float
    """Phasing: strands that do not advance."""
    ahead: float
    """Prephasing: strands that advance by two."""


def strands(*, cycles: int, phasing: Phasing) -> NDArray[np.float64]:
    """Share of a cluster's strands that show each position of the read in each cycle.

    In a cycle a strand advances by 0, 1 or 2 with probabilities ``behind``, ``1 - behind - ahead``
    and ``ahead``; the rows are the distribution after that many steps.

    Returns
    -------
    (cycles, cycles): rows are cycles, columns read positions. Rows sum to less than 1 where strands
    ran past the last position or have shown none yet.
    """
    step = np.array([phasing.behind, 1 - phasing.behind - phasing.ahead, phasing.ahead])
    shares = np.array([1.0])
    shown = np.zeros((cycles, cycles))
    for cycle in range(cycles):
        shares = np.convolve(shares, step)
        known = shares[1 : cycles + 1]
        shown[cycle, : len(known)] = known
    return shown


def undo(intensities: NDArray[np.float32], phasing: Phasing) -> NDArray[np.float32]:
    """Intensities of single positions from those of mixed strands: the linear system of :func:`strands` solved.

    Parameters
    ----------
    intensities : (n, cycles, 4); NaN where a cycle is missing, which is taken as dark and stays NaN.
    """
    number, cycles, channels = intensities.shape
    mixed = np.nan_to_num(intensities.astype(np.float64)).transpose(1, 0, 2).reshape(cycles, -1)
    single = np.linalg.solve(strands(cycles=cycles, phasing=phasing), mixed)
    single = single.reshape(cycles, number, channels).transpose(1, 0, 2)
    return np.where(np.isnan(intensities), np.nan, single).astype(np.float32)


def estimate_phasing(intensities: NDArray[np.float32]) -> Phasing:
    """Phasing from how much of the earlier and the later base shines in each cycle.

    Where the bases of two neighbouring positions differ, the light of the one in the other's cycle, above
    that of the bases that neither neighbour has, grows by ``behind`` (or ``ahead``) of the call's light a
    cycle. The slope is fitted, undone, and the slope of what is left is added, until there is none. What does
    not grow, such as the light of a neighbouring cluster, is no part of the slope.

    Parameters
    ----------
    intensities : (n, cycles, 4) corrected for cross-talk, the four bases on one scale; NaN where a cycle is missing.

    Returns
    -------
    Both 0 for less than :data:`FEWEST_CYCLES` cycles.
    """
    phasing = Phasing(0.0, 0.0)
    if len(intensities) == 0 or intensities.shape[1] < FEWEST_CYCLES:
        return phasing
    for _ in range(ROUNDS):
        left = undo(intensities, phasing)
        phasing = Phasing(
            behind=float(np.clip(phasing.behind + _growth(left, step=-1), 0, MOST)),
            ahead=float(np.clip(phasing.ahead + _growth(left, step=1), 0, MOST)),
        )
    return phasing


def _growth(intensities: NDArray[np.float32], *, step: int) -> float:
    """Growth a cycle of the light of the base that is ``step`` positions away, relative to the call's."""
    cycles = intensities.shape[1]
    bases = np.argmax(np.nan_to_num(intensities, nan=-np.inf), axis=2)
    numbers, shares = [], []
    for cycle in range(1, cycles - 1):
        own, one, other = bases[:, cycle], bases[:, cycle + step], bases[:, cycle - step]
        light = intensities[:, cycle]
        use = (one != own) & (one != other) & np.isfinite(intensities[:, cycle - 1 : cycle + 2]).all(axis=(1, 2))
        if not use.any():
            continue
        rows = np.flatnonzero(use)
        neither = np.ones((len(rows), 4), bool)
        for base in (own, one, other):
            neither[np.arange(len(rows)), base[rows]] = False
        floor = (light[rows] * neither).sum(axis=1) / neither.sum(axis=1)
        call = light[rows, own[rows]].mean()
        if call > 0:
            numbers.append(cycle + 1)
            shares.append((light[rows, one[rows]] - floor).mean() / call)
    return float(np.polyfit(numbers, shares, 1)[0]) if len(numbers) >= FEWEST_CYCLES - 2 else 0.0
