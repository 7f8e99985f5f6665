"""The module finds and measures the spots of one image in its Laplacian-of-Gaussian response."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_laplace, map_coordinates, maximum_filter

NOISE_FACTOR = 3.0
"""A maximum counts when it is this many times the response's noise. The factor is low, because the template needs
maxima at the same place in several cycles, and noise rarely has them."""

MIN_RESPONSE = 0.1
"""Response, in normalised units, below which a maximum is no cluster but texture; the typical cluster has about 0.4."""

REACH_PX = 1.5
"""A spot whose centre is this far outside the image is still seen; the response at the edge is used for it."""


def response(image: NDArray[np.float32], *, scale_px: float) -> NDArray[np.float32]:
    """Negative Laplacian of Gaussian of an image: spots without their local background.

    Its negative surround subtracts the light of neighbours and slowly varying light under a spot.

    Parameters
    ----------
    image : (H, W).
    scale_px : standard deviation of the Gaussian, pixels.

    Returns
    -------
    (H, W) in the image's units. The response at the centre of a Gaussian spot of width ``s`` is ``-σ² ∇²(G ∗ spot)``,
    which is ``2 σ² s² / (σ² + s²)²`` times the spot's amplitude: one half for ``s = σ``.
    """
    return np.asarray(-(scale_px**2) * gaussian_laplace(image.astype(np.float32), scale_px, mode="nearest"), np.float32)


def find(spots: NDArray[np.float32]) -> NDArray[np.float64]:
    """(m, 2) y and x of the local maxima of a response, to a fraction of a pixel by a parabola in each direction.

    Parameters
    ----------
    spots : (H, W) from :func:`response`, normalised units. Their noise is taken from their median absolute deviation.
    """
    noise = 1.4826 * np.median(np.abs(spots - np.median(spots)))
    y, x = np.nonzero((spots == maximum_filter(spots, 3)) & (spots > max(NOISE_FACTOR * noise, MIN_RESPONSE)))
    padded = np.pad(spots.astype(np.float64), 1, mode="edge")
    row, column = y + 1, x + 1
    peak = padded[row, column]
    down = _vertex(padded[row - 1, column], peak, padded[row + 1, column])
    along = _vertex(padded[row, column - 1], peak, padded[row, column + 1])
    return np.stack([y + down, x + along], axis=1)


def read(spots: NDArray[np.float32], positions: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n,) response at positions (n, 2), by cubic spline; NaN farther than :data:`REACH_PX` outside the image."""
    outside = np.any((positions < -REACH_PX) | (positions > np.array(spots.shape) - 1 + REACH_PX), axis=1)
    values = map_coordinates(spots, positions.T, order=3, mode="nearest")
    return np.where(outside, np.nan, values).astype(np.float32)


def _vertex(before: NDArray[np.float64], peak: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.float64]:
    """Vertex of the parabola through three neighbouring values, the middle one being the largest; [-0.5, 0.5]."""
    curvature = before - 2 * peak + after
    slope = 0.5 * (before - after)
    return np.clip(np.divide(slope, curvature, out=np.zeros_like(slope), where=curvature < 0), -0.5, 0.5)
