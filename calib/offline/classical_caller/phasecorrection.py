"""Estimate and correction of phasing for a tile of which all cycles exist."""

import numpy as np
from numpy.typing import NDArray

from calib.phasing import Phasing, estimate_phasing, neighbour_light, strands

ROUNDS = 4


def undo_phasing(intensities: NDArray[np.float32], phasing: Phasing) -> NDArray[np.float32]:
    """Compute the light that each position of the read has alone, by solving the linear system of :func:`strands`.

    Parameters
    ----------
    intensities : (n, cycles, 4); NaN where a cycle is missing, which is taken as dark and stays NaN.
    """
    number, cycles, channels = intensities.shape
    mixed = np.nan_to_num(intensities.astype(np.float64)).transpose(1, 0, 2).reshape(cycles, -1)
    single = np.linalg.solve(strands(cycles=cycles, phasing=phasing), mixed)
    single = single.reshape(cycles, number, channels).transpose(1, 0, 2)
    return np.where(np.isnan(intensities), np.nan, single).astype(np.float32)


def phasing_of(intensities: NDArray[np.float32]) -> Phasing:
    """Estimate phasing, correct it, call the bases again, and estimate it with these bases.

    Parameters
    ----------
    intensities : (n, cycles, 4) corrected for cross-talk, the four bases on one scale; NaN where a cycle is missing.

    Returns
    -------
    The two rates; both are 0 if too few cycles have a neighbour before and after them.
    """
    phasing = Phasing(0.0, 0.0)
    for _ in range(ROUNDS):
        bases = np.argmax(np.nan_to_num(undo_phasing(intensities, phasing), nan=-np.inf), axis=2)
        seen = {}
        for index in range(1, intensities.shape[1] - 1):
            known = np.isfinite(intensities[:, index - 1 : index + 2]).all(axis=(1, 2))
            light = neighbour_light(
                intensities[known, index],
                before=bases[known, index - 1],
                own=bases[known, index],
                after=bases[known, index + 1],
            )
            if light is not None:
                seen[index + 1] = light
        phasing = estimate_phasing(seen)
    return phasing
