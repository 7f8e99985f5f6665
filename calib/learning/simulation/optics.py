"""Optics: clusters spread by the point-spread function over camera pixels."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf


def spots(
    *,
    positions_px: NDArray[np.float64],
    photons: NDArray[np.float64],
    sigma_px: float,
    shape: tuple[int, int],
) -> NDArray[np.float64]:
    """Sum of Gaussian spots, each integrated over the area of every pixel.

    Parameters
    ----------
    positions_px : (n, 2) y and x; the centre of the first pixel is (0, 0).
    photons : (n,) expected photons of a spot over the whole plane.
    sigma_px : standard deviation of the point-spread function.
    shape : height and width of the image.

    Returns
    -------
    (H, W) expected photons a pixel. Light beyond 4 sigma (6e-5 of it) is cut.
    """
    height, width = shape
    radius = int(np.ceil(4 * sigma_px))
    taps = np.arange(-radius, radius + 1)
    corner = np.rint(positions_px).astype(np.int64)
    near = np.all((corner >= -radius) & (corner < np.array(shape) + radius), axis=1) & (photons > 0)
    corner, offset, photons = corner[near], (positions_px - corner)[near], photons[near]
    edges = np.arange(-radius, radius + 2) - 0.5
    cumulative = 0.5 * erf((edges[None, None, :] - offset[:, :, None]) / (sigma_px * np.sqrt(2)))
    weights = np.diff(cumulative, axis=2)
    stamps = (photons[:, None] * weights[:, 0])[:, :, None] * weights[:, 1][:, None, :]
    rows = corner[:, 0, None] + taps + radius
    columns = corner[:, 1, None] + taps + radius
    padded = (height + 4 * radius + 1, width + 4 * radius + 1)
    # Stamps centred up to `radius` outside the image still fit in the padded canvas.
    flat = (rows + radius)[:, :, None] * padded[1] + (columns + radius)[:, None, :]
    canvas = np.bincount(flat.ravel(), weights=stamps.ravel(), minlength=padded[0] * padded[1])
    start = 2 * radius
    return np.asarray(canvas.reshape(padded)[start : start + height, start : start + width], np.float64)
