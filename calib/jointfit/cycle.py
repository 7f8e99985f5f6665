"""The fit of one cycle at known positions: what every cluster shows in every channel."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from calib.jointfit.chemistry import expected_light
from calib.jointfit.scene import Scene, near_pairs
from calib.jointfit.solve import solve
from calib.jointfit.spots import Spots, overlaps

RIDGE = 0.1
"""Pull towards the expected light, in shares of a spot's own weight."""

BACKGROUND_PX = 5.0
"""Background varies over distances like this."""

BACKGROUND_PERCENTILE = 20
OUTLIER = 4.0
"""Residuals beyond this many noises do not move the background."""

BACKGROUND_STEP = 0.7
BACKGROUND_ROUNDS = 3
SHIFT_ROUNDS = 2
SHIFT_MOST_PX = 0.3

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


def fit_cycle(images: NDArray[np.float32], scene: Scene, drift_px: NDArray[np.float32]) -> FittedCycle:
    """Fit all clusters of a cycle together: background, shift, then light.

    Ridge regression, drawn to what one base a cluster would show. The background is what the fit
    leaves over, smoothed; the images' shift is refined by Gauss-Newton steps.

    Parameters
    ----------
    images : (4, H, W) normalised units.
    drift_px : (2,) shift of the cycle against the template, good to about half a pixel.
    """
    number = len(scene.positions)
    light = np.zeros((number, 4))
    if number == 0:
        return FittedCycle(light.astype(np.float32), np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    shape = (images.shape[1], images.shape[2])
    pairs = near_pairs(scene.positions, scene.sigma_px)
    shift = drift_px + scene.channel_shift_px
    wanted, overlap, shown_as = np.zeros((number, 4)), [], []
    even = np.empty_like(images)
    for channel in range(4):
        image, noise, sigma = images[channel], float(scene.noise[channel]), float(scene.sigma_px[channel])
        overlap.append(overlaps(scene.positions + shift[channel], pairs, sigma, shape))
        background = start_background(image)
        ridge = RIDGE * np.pi * sigma**2
        spots = Spots(scene.positions + shift[channel], sigma, shape)
        for step in range(BACKGROUND_ROUNDS):
            wanted[:, channel] = spots.read(image - background)
            light[:, channel] = solve(overlap[channel], ridge, wanted[:, channel], light[:, channel])
            rest = image - background - spots.draw(light[:, channel])
            if step < SHIFT_ROUNDS:
                shift[channel] += _moved(spots, rest, light[:, channel])
                spots = Spots(scene.positions + shift[channel], sigma, shape)
            background = background + background_step(rest, noise)
        even[channel] = image - background
        wanted[:, channel] = spots.read(even[channel])
        shown_as.append(spots)
    shown = brightness_now(light, scene)
    for _ in range(CHEMISTRY_ROUNDS):
        expected = expected_light(light, shown, scene.crosstalk)
        for channel in range(4):
            ridge = RIDGE * np.pi * scene.sigma_px[channel] ** 2
            drawn = wanted[:, channel] + ridge * expected[:, channel]
            light[:, channel] = solve(overlap[channel], ridge, drawn, light[:, channel])
    left_over = np.zeros((number, 4), np.float32)
    for channel, spots in enumerate(shown_as):
        # Only now: light that the ridge has drawn to zero leaves a tenth of every bright cluster over.
        left_over[:, channel] = _around(spots, even[channel] - spots.draw(light[:, channel]))
    areas = np.pi * scene.sigma_px**2
    visible = np.mean([one.diagonal() / area for one, area in zip(overlap, areas, strict=True)], axis=0)
    return FittedCycle(light.astype(np.float32), left_over, visible.astype(np.float32))


def brightness_now(light: NDArray[np.floating], scene: Scene) -> NDArray[np.float64]:
    """(n,) brightness in this cycle: the template's, times what light has been lost since (or gained)."""
    shown = np.maximum(np.linalg.solve(scene.crosstalk, light.T).max(axis=0), 0)
    lit = scene.brightness > 0
    return scene.brightness * float(np.median(shown[lit] / scene.brightness[lit])) if lit.any() else scene.brightness


def start_background(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """(H, W) first guess: even."""
    return np.full(image.shape, np.percentile(image, BACKGROUND_PERCENTILE), np.float32)


def background_step(rest: NDArray[np.float32], noise: float) -> NDArray[np.float32]:
    """(H, W) what to add to the background, from what the fit left over."""
    clipped = np.clip(rest, -OUTLIER * noise, OUTLIER * noise)
    return np.asarray(BACKGROUND_STEP * gaussian_filter(clipped, BACKGROUND_PX), np.float32)


def _moved(spots: Spots, rest: NDArray[np.float32], light: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2,) Gauss-Newton step of the shift that all spots of an image share."""
    lit = np.maximum(light, 0)
    y, x, _ = spots.read_moments(rest)
    # The gradient of a spot is its height times distance over sigma²; its square integrates to pi / 2.
    weight = (lit**2).sum() * np.pi / 2 * spots.sigma**2
    if weight == 0:
        return np.zeros(2)
    step = np.array([(lit * y).sum(), (lit * x).sum()]) / weight
    return np.asarray(np.clip(step, -SHIFT_MOST_PX, SHIFT_MOST_PX))


def _around(spots: Spots, rest: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n,) root mean square around each spot of the heights that single spots would have in the rest."""
    # A Gaussian filter sums to 1; a spot of height 1 gives half of that under its own filter.
    heights = 2 * gaussian_filter(rest, spots.sigma)
    squared = gaussian_filter(heights**2, AROUND_PX)
    return np.asarray(np.sqrt(squared.ravel()[spots.nearest]), np.float32)
