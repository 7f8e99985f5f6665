"""The fit of one cycle at known positions: what every cluster shows in every channel."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calib.jointfit.arrays import Array, library_of
from calib.jointfit.colourprior import expected_light, mixed
from calib.jointfit.gaussianspots import Spots
from calib.jointfit.neighbours import overlaps
from calib.jointfit.scene import Scene
from calib.jointfit.smoothing import broad_blur
from calib.jointfit.solve import solve

RIDGE = 0.1
"""Pull towards the expected light, in shares of a spot's own weight."""

BACKGROUND_PX = 5.0
"""Background varies over distances like this."""

BACKGROUND_PERCENTILE = 20
BACKGROUND_SAMPLES = 512
"""Rows and columns of an image that its first, even background is taken from."""

OUTLIER = 4.0
"""Residuals beyond this many noises do not move the background."""

BACKGROUND_STEP = 0.7
BACKGROUND_ROUNDS = 3
SHIFT_ROUNDS = 2
MAX_SHIFT_PX = 0.3

AROUND_PX = 5.0
"""Distance over which what is left over around a cluster is averaged."""

CHEMISTRY_ROUNDS = 3


@dataclass(frozen=True)
class FittedCycle:
    """One cycle as the joint fit sees it."""

    light: NDArray[np.float32]
    """(n, 4) peak height of each cluster's spot in each channel, normalised units."""
    left_over: NDArray[np.float32]
    """(n, 4) root mean square of what the fit left over around each cluster, as peak height of a spot."""
    visible: NDArray[np.float32]
    """(n,) share of each cluster's spot, squared, that lies on the images; mean of the channels."""


def fit_cycle(images: Array, scene: Scene, drift_px: NDArray[np.float32]) -> FittedCycle:
    """Fit all clusters of a cycle together: background, shift, then light.

    Ridge regression, drawn to what one base a cluster would show. The background is what the fit
    leaves over, smoothed; the images' shift is refined by Gauss-Newton steps. Runs where the images are;
    the same input gives the same bits there every time.

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
    for _ in range(CHEMISTRY_ROUNDS):
        light = solve(overlap, ridge, wanted + ridge * expected_light(light, shown, scene.crosstalk), light)
    # Only now: light that the ridge has drawn to zero leaves a tenth of every bright cluster over.
    left_over = _around(spots, even - spots.draw(light), sigma)
    visible = (overlap.own / areas).mean(axis=0)
    return FittedCycle(*(np.ascontiguousarray(library.to_host(one)) for one in (light.T, left_over.T, visible)))


def brightness_now(light: Array, scene: Scene) -> NDArray[np.float64]:
    """(n,) brightness in this cycle: the template's, times what light has been lost since (or gained).

    Parameters
    ----------
    light : (n, 4) fitted in each channel.
    """
    lit = np.flatnonzero(scene.brightness > 0)
    if len(lit) == 0:
        return scene.brightness
    xp = library_of(light).xp
    shown = xp.maximum(mixed(np.linalg.inv(scene.crosstalk), light.T).max(axis=0), 0)
    return scene.brightness * float(xp.median(shown[xp.asarray(lit)] / xp.asarray(scene.brightness[lit])))


def start_background(images: Array) -> Array:
    """(..., 1, 1) float32 first guess of each image, (..., H, W): even."""
    height, width = images.shape[-2:]
    some = images[..., :: -(-height // BACKGROUND_SAMPLES), :: -(-width // BACKGROUND_SAMPLES)]
    some = some.reshape(*images.shape[:-2], -1)
    level = library_of(images).xp.percentile(some, BACKGROUND_PERCENTILE, axis=-1)
    return level.astype(np.float32)[..., None, None]


def background_step(rest: Array, noise: NDArray[np.float64]) -> Array:
    """(b, H, W) what to add to the background, from what the fit left over, and the (b,) noise of a pixel."""
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


def _around(spots: Spots, rest: Array, sigma: NDArray[np.float64]) -> Array:
    """(b, n) root mean square around each spot of the heights that single spots would have in the rest."""
    library = library_of(rest)
    # A Gaussian filter sums to 1; a spot of height 1 gives half of that under its own filter.
    heights = [2 * library.gaussian_filter(image, float(width)) for image, width in zip(rest, sigma, strict=True)]
    squared = broad_blur(library.xp.stack(heights) ** 2, AROUND_PX)
    return library.xp.sqrt(squared.ravel()[spots.nearest])
