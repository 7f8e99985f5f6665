"""Phasing and prephasing: strands of a cluster that fall behind or run ahead."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_PHASING = 0.05
"""Upper bound of both rates; sequencing with a higher rate gives no usable calls."""

MIN_CYCLES = 8
"""Phasing is not estimated from fewer cycles than this, because its effect grows from cycle to cycle and is too small
in the first ones."""

START = 0.002

OUTLIER = 0.03
"""A cycle whose light deviates from the fit by more than this counts less."""


@dataclass(frozen=True)
class Phasing:
    """Shares of the strands that slip in each cycle."""

    behind: float
    """Phasing: strands that do not advance."""
    ahead: float
    """Prephasing: strands that advance by two."""


@dataclass(frozen=True)
class NeighbourLight:
    """Light of three consecutive bases in one cycle, mean over clusters, in any unit.

    From each value the light of bases that differ from all three is subtracted, because it comes from the background
    and from other clusters.
    """

    own: float
    """Light of the called base."""
    behind: float
    """Light of the base before, shown by strands that fell behind."""
    ahead: float
    """Light of the base after, shown by strands that ran ahead."""


def strands(*, cycles: int, phasing: Phasing) -> NDArray[np.float64]:
    """Share of a cluster's strands that show each position of the read in each cycle.

    In a cycle a strand advances by 0, 1 or 2 with probabilities ``behind``, ``1 - behind - ahead``
    and ``ahead``; the rows are the distribution after that many steps.

    Returns
    -------
    (cycles, cycles): rows are cycles, columns read positions. Rows sum to less than 1 where strands
    are past the last position or have not reached the first.
    """
    step = np.array([phasing.behind, 1 - phasing.behind - phasing.ahead, phasing.ahead])
    shares = np.array([1.0])
    shown = np.zeros((cycles, cycles))
    for cycle in range(cycles):
        shares = np.convolve(shares, step)
        known = shares[1 : cycles + 1]
        shown[cycle, : len(known)] = known
    return shown


def neighbour_light(
    light: NDArray[np.floating], *, before: NDArray[np.integer], own: NDArray[np.integer], after: NDArray[np.integer]
) -> NeighbourLight | None:
    """Light of the bases before and after in one cycle, from the clusters where the three bases differ.

    The fourth base, which is none of the three, shows the light that background and other clusters add.

    Parameters
    ----------
    light : (n, 4) of each base in the cycle; NaN where a cluster cannot be read.
    before, own, after : (n,) bases, 0-3.

    Returns
    -------
    None if the three bases differ in no cluster.
    """
    use = (before != own) & (own != after) & (before != after) & np.isfinite(light).all(axis=1)
    if not use.any():
        return None
    rows = np.flatnonzero(use)
    fourth = light[rows, 6 - before[rows] - own[rows] - after[rows]]
    shown = [float(np.mean(light[rows, base[rows]] - fourth)) for base in (own, before, after)]
    return NeighbourLight(*shown) if shown[0] > 0 else None


def estimate_phasing(seen: Mapping[int, NeighbourLight]) -> Phasing:
    """Phasing that explains how the light of neighbouring bases grows over the cycles; least squares.

    Parameters
    ----------
    seen : light of neighbouring bases, by 1-based cycle of the read.

    Returns
    -------
    The two rates; both are 0 for less than :data:`MIN_CYCLES` cycles.
    """
    if len(seen) < MIN_CYCLES:
        return Phasing(0.0, 0.0)
    # Importing SciPy's optimiser takes longer than most commands that read a run.
    from scipy.optimize import least_squares

    rows = np.array(sorted(seen)) - 1
    lights: Sequence[NeighbourLight] = [seen[row + 1] for row in rows]
    behind = np.array([light.behind / light.own for light in lights])
    ahead = np.array([light.ahead / light.own for light in lights])
    inner = rows > 0

    def misfit(rates: NDArray[np.float64]) -> NDArray[np.float64]:
        shown = strands(cycles=int(rows[-1]) + 2, phasing=Phasing(*rates))
        own = shown[rows, rows]
        fell = (behind - shown[rows, rows - 1] / own)[inner]
        return np.concatenate([fell, ahead - shown[rows, rows + 1] / own])

    # The loss keeps a single nearly dark cycle from changing the fit.
    found = least_squares(
        misfit, [START, START], bounds=([0, 0], [MAX_PHASING, MAX_PHASING]), loss="soft_l1", f_scale=OUTLIER
    ).x
    return Phasing(behind=float(found[0]), ahead=float(found[1]))
