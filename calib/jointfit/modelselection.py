"""Model selection: which clusters of a crowded fit are not one more cluster."""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from calib.crosstalk import estimate_crosstalk, unmix

NEIGHBOUR_SIGMAS = 1.9
"""A cluster can be a splinter of a brighter one within this many sigma."""

AGREEMENT = 0.6
"""Share of the cycles in which two clusters show the same base, from which the dimmer is a splinter.
Two clusters of their own agree in a quarter of them."""

DIM, DIM_AGREEMENT = 0.3, 0.45
"""A cluster of less than this share of its neighbour's brightness is held to more."""

BRIGHTNESS_NOISES = 2.5
"""Light, in noises of a fitted spot, below which there is no cluster."""

UNSTEADY = 0.5
"""Spread of the light over the cycles, relative to its mean, above which nothing emits in every cycle."""

DIMMEST_CYCLE = 0.05
"""A cycle dimmer than this share of the usual is not scaled up to it."""


def spurious_clusters(
    positions: NDArray[np.float64], light: NDArray[np.float64], sigma: NDArray[np.float64], noise: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """(n,) splinters of brighter clusters, and what is too dim or too unsteady to be a cluster.

    Parameters
    ----------
    positions : (n, 2).
    light : (n, cycles, 4) fitted in every channel.
    sigma, noise : (4,) of spots and of pixels.
    """
    if len(positions) == 0:
        return np.zeros(0, bool)
    shown = unmix(light, estimate_crosstalk(light))
    brightest, base = shown.max(axis=2), shown.argmax(axis=2)
    brightness = np.median(brightest, axis=1)
    # A cycle may be dim as a whole.
    usual = np.median(brightest, axis=0)
    steady = brightest / np.maximum(usual, max(DIMMEST_CYCLE * float(np.median(usual)), 1e-9))
    unsteady = steady.std(axis=1) > UNSTEADY * np.abs(steady.mean(axis=1))
    # A fitted spot of height h has the significance h sqrt(pi) sigma / noise.
    significance = np.median((light * (np.sqrt(np.pi) * sigma / noise)).max(axis=2), axis=1)
    gone = unsteady | (significance < BRIGHTNESS_NOISES)
    pairs = cKDTree(positions).query_pairs(NEIGHBOUR_SIGMAS * float(sigma.mean()), output_type="ndarray")
    first_brighter = brightness[pairs[:, 0]] >= brightness[pairs[:, 1]]
    bright = np.where(first_brighter, pairs[:, 0], pairs[:, 1])
    dim = np.where(first_brighter, pairs[:, 1], pairs[:, 0])
    agreement = (base[bright] == base[dim]).mean(axis=1)
    much_dimmer = brightness[dim] < DIM * brightness[bright]
    splinter = (agreement > AGREEMENT) | (much_dimmer & (agreement > DIM_AGREEMENT))
    # From the brightest down, so that a splinter takes nothing with it.
    for index in np.flatnonzero(splinter)[np.argsort(-brightness[bright[splinter]], kind="stable")]:
        if not gone[bright[index]]:
            gone[dim[index]] = True
    return np.asarray(gone)
