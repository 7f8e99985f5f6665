"""Model selection: which clusters of a crowded fit are spurious.

``docs/benchmarks/template-constants.md`` shows how much each constant matters.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from calib.crosstalk import estimate_crosstalk, unmix

NEIGHBOUR_SIGMAS = 1.9
"""Two clusters closer than this many sigma can be one cluster that the fit has divided."""

AGREEMENT = 0.6
"""If two close clusters show the same base in more than this share of the cycles, the dimmer is spurious.
Two real clusters with random sequences agree in a quarter of the cycles."""

DIM, DIM_AGREEMENT = 0.3, 0.45
"""If a cluster is dimmer than ``DIM`` times its neighbour, it is spurious already when more than ``DIM_AGREEMENT`` of
the cycles agree."""

MIN_SIGNIFICANCE = 2.5
"""Smallest light of a cluster, in standard errors of a fitted spot; median over the cycles."""

MAX_UNSTEADINESS = 0.5
"""Largest standard deviation of a cluster's light over the cycles, relative to its mean."""

MIN_CYCLE_BRIGHTNESS = 0.05
"""The light of a cycle is divided by the cycle's brightness, but at least by this share of the median brightness."""


def spurious_clusters(
    positions: NDArray[np.float64], light: NDArray[np.float64], sigma: NDArray[np.float64], noise: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """(n,) whether a cluster is a part of a brighter one, too dim, or too unsteady over the cycles.

    Parameters
    ----------
    positions : (n, 2).
    light : (n, cycles, 4) fitted in every channel.
    sigma, noise : (4,) width of the spots, pixels, and noise of a pixel, in each channel.
    """
    if len(positions) == 0:
        return np.zeros(0, bool)
    shown = unmix(light, estimate_crosstalk(light))
    brightest, base = shown.max(axis=2), shown.argmax(axis=2)
    brightness = np.median(brightest, axis=1)
    # The whole tile may be dim in a cycle.
    usual = np.median(brightest, axis=0)
    steady = brightest / np.maximum(usual, max(MIN_CYCLE_BRIGHTNESS * float(np.median(usual)), 1e-9))
    unsteady = steady.std(axis=1) > MAX_UNSTEADINESS * np.abs(steady.mean(axis=1))
    # A fitted spot of height h has the significance h sqrt(pi) sigma / noise.
    significance = np.median((light * (np.sqrt(np.pi) * sigma / noise)).max(axis=2), axis=1)
    gone = unsteady | (significance < MIN_SIGNIFICANCE)
    pairs = cKDTree(positions).query_pairs(NEIGHBOUR_SIGMAS * float(sigma.mean()), output_type="ndarray")
    first_brighter = brightness[pairs[:, 0]] >= brightness[pairs[:, 1]]
    bright = np.where(first_brighter, pairs[:, 0], pairs[:, 1])
    dim = np.where(first_brighter, pairs[:, 1], pairs[:, 0])
    agreement = (base[bright] == base[dim]).mean(axis=1)
    much_dimmer = brightness[dim] < DIM * brightness[bright]
    divided = (agreement > AGREEMENT) | (much_dimmer & (agreement > DIM_AGREEMENT))
    # The loop takes the pairs with the brightest clusters first, because a removed cluster must not remove another.
    for index in np.flatnonzero(divided)[np.argsort(-brightness[bright[divided]], kind="stable")]:
        if not gone[bright[index]]:
            gone[dim[index]] = True
    return np.asarray(gone)
