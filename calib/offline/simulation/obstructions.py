"""Obstacles between the clusters and the camera: bubbles in single cycles, and dust that stays."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

RIM_PX = 2.0
"""Softness of a bubble's rim."""


def bubbles(
    *, shape: tuple[int, int], mean_number: float, radius_px: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Round bubbles at random (Poisson) places, their radii spread by a tenth.

    Parameters
    ----------
    mean_number : bubbles expected in the tile.
    radius_px : median radius.

    Returns
    -------
    (H, W) cover: 1 under a bubble, 0 beside it, one half on its rim.
    """
    clear = np.ones(shape)
    y, x = np.ogrid[: shape[0], : shape[1]]
    for _ in range(rng.poisson(mean_number)):
        centre, radius = rng.uniform((0, 0), shape), radius_px * rng.lognormal(0, 0.1)
        outside = np.hypot(y - centre[0], x - centre[1]) - radius
        clear *= 0.5 * (1 + np.tanh(outside / RIM_PX))
    return np.asarray(1 - clear)


def seen_through(
    *, photons: NDArray[np.float64], cover: NDArray[np.float64], light: float, blur_px: float
) -> NDArray[np.float64]:
    """Image seen through bubbles: what is covered is dimmed and blurred.

    Parameters
    ----------
    photons : (H, W) expected photons a pixel.
    cover : (H, W) from :func:`bubbles`.
    light : share of the light that a bubble lets through.
    blur_px : standard deviation of its blur.
    """
    return np.asarray(photons * (1 - cover) + light * cover * gaussian_filter(photons, blur_px, mode="nearest"))


def dust(
    *, shape: tuple[int, int], number: int, photons_px: float, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gaussian specks with a sigma of 1.5 to 5 px. Half of them absorb 30 to 95 % of the light at their centre, and the
    other half glow.

    Parameters
    ----------
    number : specks in the tile.
    photons_px : brightness of a typical glowing speck at its centre, photons a pixel.

    Returns
    -------
    transmission and glow, each (H, W): the share of light that is let through, and the light of the specks in photons a
    pixel.
    """
    transmission, glow = np.ones(shape), np.zeros(shape)
    y, x = np.ogrid[: shape[0], : shape[1]]
    for _ in range(number):
        centre, sigma = rng.uniform((0, 0), shape), rng.uniform(1.5, 5)
        speck = np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / (2 * sigma**2))
        if rng.random() < 0.5:
            transmission *= 1 - rng.uniform(0.3, 0.95) * speck
        else:
            glow += photons_px * rng.lognormal(0, 0.5) * speck
    return transmission, glow
