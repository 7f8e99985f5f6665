"""The fit of one cycle at known positions: the light of every cluster in every channel."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calib.jointfit.arrays import Array, library_of
from calib.jointfit.colourprior import expected_light, mix_channels
from calib.jointfit.gaussianspots import Spots
from calib.jointfit.neighbours import overlaps
from calib.jointfit.scene import Scene
from calib.jointfit.smoothing import broad_blur
from calib.jointfit.solve import solve

RIDGE = 0.1
"""Weight of the expected light in the ridge regression, relative to the sum of a spot's squared pixel values."""

BACKGROUND_PX = 5.0
"""Width of the Gaussian that smooths the background."""

BACKGROUND_PERCENTILE = 20
"""The fit starts with an even background, which is this percentile of the image."""

BACKGROUND_SAMPLES = 512
"""Largest number of rows, and of columns, from which that percentile is computed."""

OUTLIER = 4.0
"""Residuals are clipped at this many standard deviations of the noise before they change the background."""

BACKGROUND_STEP = 0.7
"""Each round adds this share of the smoothed residual to the background."""

BACKGROUND_ROUNDS = 3
SHIFT_ROUNDS = 2
MAX_SHIFT_PX = 0.3
"""Largest change of the shift in one round."""

AROUND_PX = 5.0
"""Width of the Gaussian that averages the residual around a cluster."""

ONE_BASE_ROUNDS = 3
"""Number of last rounds, in which the ridge expects that each cluster shows one base."""


@dataclass(frozen=True)
class FittedCycle:
    """Result of the joint fit of one cycle."""

    light: NDArray[np.float32]
    """(n, 4) peak height of each cluster's spot in each channel, normalised units."""
    left_over: NDArray[np.float32]
    """(n, 4) root mean square of the residual around each cluster, as the peak height of a spot."""
    visible: NDArray[np.float32]
    """(n,) share of the sum of each cluster's squared spot that lies on the images; mean of the channels."""


def fit_cycle(images: Array, scene: Scene, drift_px: NDArray[np.float32]) -> FittedCycle:
    """Fit all clusters of a cycle together: background, shift, then light.

    The fit is a ridge regression towards the light that each cluster would have if it showed one base. The background
    is the smoothed residual; Gauss-Newton steps refine the shift of the images. The fit runs on the device of the
    images, and the same input gives the same bits on that device every time.

    Parameters
    ----------
    images : (4, H, W) float32, normalised units; of NumPy, or of CuPy on the current device.
    drift_px : (2,) shift of the cycle against the template, good to about half a pixel.
    """
    if len(scene.positions) == 0:
        nothing = np.zeros((0, 4), np.float32)
        return FittedCycle(nothing, nothing, np.zeros(0, np.float32))
    library = library_of(images)
    xp, sigma, shape = library.xp, scene.sigma_px, (images.shape[1], images.shape[2])
    positions = xp.asarray(scene.positions)
    shift = xp.asarray(drift_px + scene.channel_shift_px, np.float64)
    areas = xp.asarray(np.pi * sigma**2, np.float32)[:, None]
    ridge = RIDGE * areas
    spots = Spots(positions + shift[:, None], sigma, shape)
    overlap = overlaps(positions + shift[:, None], scene.neighbours, sigma, shape)
    background = start_background(images)
    light = xp.zeros((4, len(positions)), np.float32)
    for step in range(BACKGROUND_ROUNDS):
        above = images - background
        light = solve(overlap, ridge, spots.read(above), light)
        rest = above - spots.draw(light)
        if step < SHIFT_ROUNDS:
            shift = shift + _moved(spots, rest, light, sigma)
            spots = Spots(positions + shift[:, None], sigma, shape)
        background = background + background_step(rest, scene.noise)
    even = images - background
    wanted = spots.read(even)
    shown = xp.asarray(brightness_now(light.T, scene), np.float32)
    for _ in range(ONE_BASE_ROUNDS):
        light = solve(overlap, ridge, wanted + ridge * expected_light(light, shown, scene.crosstalk), light)
    # Only now is the residual measured: in the first rounds the ridge draws the light towards zero, so that a tenth of
    # every bright cluster remains in the residual.
    left_over = _residual_heights(spots, even - spots.draw(light), sigma)
    visible = (overlap.own / areas).mean(axis=0)
    return FittedCycle(*(np.ascontiguousarray(library.to_host(one)) for one in (light.T, left_over.T, visible)))


def brightness_now(light: Array, scene: Scene) -> NDArray[np.float64]:
    """(n,) brightness in this cycle: the template's brightness times the median ratio of this cycle's light to it.

    Parameters
    ----------
    light : (n, 4) fitted in each channel.
    """
    lit = np.flatnonzero(scene.brightness > 0)
    if len(lit) == 0:
        return scene.brightness
    xp = library_of(light).xp
    shown = xp.maximum(mix_channels(np.linalg.inv(scene.crosstalk), light.T).max(axis=0), 0)
    return scene.brightness * float(xp.median(shown[xp.asarray(lit)] / xp.asarray(scene.brightness[lit])))


def start_background(images: Array) -> Array:
    """(..., 1, 1) float32 even background of each image, (..., H, W), to start with."""
    height, width = images.shape[-2:]
    some = images[..., :: -(-height // BACKGROUND_SAMPLES), :: -(-width // BACKGROUND_SAMPLES)]
    some = some.reshape(*images.shape[:-2], -1)
    level = library_of(images).xp.percentile(some, BACKGROUND_PERCENTILE, axis=-1)
    return level.astype(np.float32)[..., None, None]


def background_step(rest: Array, noise: NDArray[np.float64]) -> Array:
    """(b, H, W) change of the background, from the residual (b, H, W) and the (b,) noise of a pixel."""
    library = library_of(rest)
    most = library.xp.asarray(OUTLIER * noise, np.float32)[:, None, None]
    clipped = library.xp.clip(rest, -most, most)
    return BACKGROUND_STEP * broad_blur(clipped, BACKGROUND_PX)


def _moved(spots: Spots, rest: Array, light: Array, sigma: NDArray[np.float64]) -> Array:
    """(b, 2) Gauss-Newton step of the shift that all spots of an image share."""
    library = library_of(light)
    xp, lit = library.xp, library.xp.maximum(light, 0)
    pull = xp.stack([library.dot(lit, along, axis=1) for along in spots.read_moments(rest)[:2]], axis=1)
    # The gradient of a spot is its height times distance over sigma²; its square integrates to pi / 2.
    weight = library.dot(lit, lit, axis=1) * xp.asarray(np.pi / 2 * sigma**2, np.float32)
    return xp.clip(pull / xp.maximum(weight, 1e-30)[:, None], -MAX_SHIFT_PX, MAX_SHIFT_PX)


def _residual_heights(spots: Spots, rest: Array, sigma: NDArray[np.float64]) -> Array:
    """(b, n) root mean square, around each spot, of the heights of spots that would explain the residual."""
    library = library_of(rest)
    # The weights of a Gaussian filter sum to 1. Such a filter reduces a spot of its own width to half its height.
    heights = [2 * library.gaussian_filter(image, float(width)) for image, width in zip(rest, sigma, strict=True)]
    squared = broad_blur(library.xp.stack(heights) ** 2, AROUND_PX)
    return library.xp.sqrt(squared.ravel()[spots.nearest])
