"""Optics: clusters projected onto the camera and spread by the point-spread function over its pixels."""

import numpy as np
from numpy.typing import NDArray
from scipy.signal import oaconvolve
from scipy.special import erf

SPOTS_AT_ONCE = 65_536
"""Spots rendered together; bounds the memory of a large or crowded tile."""

TAIL_REACH = 8
"""A tail is drawn in a square that reaches this many widths of the tail to each side; 11 % of its light is outside."""


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
    edges = np.arange(-radius, radius + 2) - 0.5
    corner = np.rint(positions_px).astype(np.int64)
    near = np.all((corner >= -radius) & (corner < np.array(shape) + radius), axis=1) & (photons > 0)
    corner, offset, photons = corner[near], (positions_px - corner)[near], photons[near]
    # Stamps centred up to `radius` outside the image still fit in the padded canvas.
    padded = (height + 4 * radius + 1, width + 4 * radius + 1)
    canvas = np.zeros(padded[0] * padded[1])
    for first in range(0, len(corner), SPOTS_AT_ONCE):
        part = slice(first, first + SPOTS_AT_ONCE)
        cumulative = 0.5 * erf((edges[None, None, :] - offset[part, :, None]) / (sigma_px * np.sqrt(2)))
        weights = np.diff(cumulative, axis=2)
        stamps = (photons[part, None] * weights[:, 0])[:, :, None] * weights[:, 1][:, None, :]
        rows = corner[part, 0, None] + taps + 2 * radius
        columns = corner[part, 1, None] + taps + 2 * radius
        flat = rows[:, :, None] * padded[1] + columns[:, None, :]
        canvas += np.bincount(flat.ravel(), weights=stamps.ravel(), minlength=len(canvas))
    start = 2 * radius
    return np.asarray(canvas.reshape(padded)[start : start + height, start : start + width], np.float64)


def tails(
    *,
    positions_px: NDArray[np.float64],
    photons: NDArray[np.float64],
    width_px: float,
    shape: tuple[int, int],
) -> NDArray[np.float64]:
    """Light that diffraction spreads widely: the profile w / (2 pi (r^2 + w^2)^(3/2)) around every position.

    It falls with r^-3, like the mean of the rings of the Airy pattern. Outside the circle of radius R, the profile has
    the share w / sqrt(R^2 + w^2) of its light. The Airy pattern has the share 2 / (pi v) there, with
    v = 2 pi NA R / wavelength (Born and Wolf 8.5.2), which is 0.48 sigma / R for sigma = 0.21 wavelength / NA.
    Far from the centre, a spot with 0.24 of its light in a tail of width 2 sigma has the same share.

    Parameters
    ----------
    positions_px : (n, 2) y and x.
    photons : (n,) expected photons of a tail over the whole plane.
    width_px : w of the profile, at least 1, so that positions within a pixel can be interpolated linearly.
    shape : height and width of the image.

    Returns
    -------
    (H, W) expected photons a pixel, integrated over the pixels; light beyond :data:`TAIL_REACH` widths is cut.
    """
    radius = int(np.ceil(TAIL_REACH * width_px))
    extent = np.array(shape) + 2 * radius
    place = positions_px + radius
    corner = np.floor(place).astype(np.int64)
    near = np.all((corner >= 0) & (corner < extent - 1), axis=1)
    corner, inside, photons = corner[near], (place - corner)[near], photons[near]
    canvas = np.zeros(extent[0] * extent[1])
    for dy in (0, 1):
        for dx in (0, 1):
            share = np.abs(1 - dy - inside[:, 0]) * np.abs(1 - dx - inside[:, 1])
            flat = (corner[:, 0] + dy) * extent[1] + corner[:, 1] + dx
            canvas += np.bincount(flat, weights=photons * share, minlength=len(canvas))
    edges = np.arange(-radius, radius + 2) - 0.5
    y, x = edges[:, None], edges[None, :]
    # The profile's integral over a rectangle is the rectangle's solid angle from the height w, divided by 2 pi.
    corners = np.arctan2(y * x, width_px * np.sqrt(y**2 + x**2 + width_px**2)) / (2 * np.pi)
    kernel = np.diff(np.diff(corners, axis=0), axis=1)
    light = oaconvolve(canvas.reshape(extent), kernel, mode="valid")
    return np.asarray(np.clip(light, 0, None), np.float64)


def defocused_sigma(*, sigma_px: float, defocus_um: float, depth_um: float) -> float:
    """Width of a spot out of focus, sigma sqrt(1 + (z / d)^2) (Huang et al. 2008, without higher terms).

    Parameters
    ----------
    sigma_px : standard deviation in focus.
    defocus_um : z, distance from the focal plane.
    depth_um : d, at which the spot has grown by the square root of two.
    """
    return float(sigma_px * np.sqrt(1 + (defocus_um / depth_um) ** 2))


def projected(
    *, positions_px: NDArray[np.float64], shift_px: NDArray[np.float64], magnification: float, shape: tuple[int, int]
) -> NDArray[np.float64]:
    """Where a camera sees positions: magnified about the image centre, then shifted; (n, 2) y and x.

    Parameters
    ----------
    positions_px : (n, 2) y and x in an image of magnification 1.
    shift_px : (2,) y and x.
    magnification : relative, 1 leaves the scale as it is.
    shape : height and width of the image.
    """
    centre = (np.array(shape) - 1) / 2
    return np.asarray(positions_px + shift_px + (positions_px - centre) * (magnification - 1))
