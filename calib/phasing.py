"""Phasing and prephasing: strands of a cluster that fall behind or run ahead."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_PHASING = 0.05
"""No chemistry worth reading loses more than this share of strands a cycle."""

MIN_CYCLES = 8
"""Fewer cycles show nothing that grows."""

START = 0.002

OUTLIER = 0.03
"""Distance of a cycle's light from the growth fitted, from which it counts less."""


@dataclass(frozen=True)
class Phasing:
    """Shares of the strands that slip in each cycle."""

    behind: float
    """Phasing: strands that do not advance."""
    ahead: float
    """Prephasing: strands that advance by two."""


@dataclass(frozen=True)
class NeighbourLight:
    """What the strands out of step showed in one cycle, mean over clusters, in any unit."""

    own: float
    """Light of the called base, above that of bases that neither neighbour has."""
    behind: float
    """Light of the base before, above the same."""
    ahead: float
    """Light of the base after, above the same."""


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


def neighbour_light(
    light: NDArray[np.floating], *, before: NDArray[np.integer], own: NDArray[np.integer], after: NDArray[np.integer]
) -> NeighbourLight | None:
    """Light of the bases before and after in one cycle, from the clusters where the three bases differ.

    The fourth base, which neither neighbour has, shows what background and other clusters add.

    Parameters
    ----------
    light : (n, 4) of each base in the cycle; NaN where a cluster cannot be read.
    before, own, after : (n,) bases, 0-3.

    Returns
    -------
    None where no cluster can say anything.
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
    seen : by 1-based cycle of the read.

    Returns
    -------
    Both 0 for less than :data:`MIN_CYCLES` cycles.
    """
    if len(seen) < MIN_CYCLES:
        return Phasing(0.0, 0.0)
    # It takes longer to import than most programs that read a ledger run.
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

    # One cycle that shows hardly anything must not bend the rest of the read.
    found = least_squares(
        misfit, [START, START], bounds=([0, 0], [MAX_PHASING, MAX_PHASING]), loss="soft_l1", f_scale=OUTLIER
    ).x
    return Phasing(behind=float(found[0]), ahead=float(found[1]))
