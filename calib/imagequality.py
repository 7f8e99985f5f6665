"""Intensity and focus of each channel in one cycle, measured on the images at the positions of the clusters."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PERCENTILE = 90
"""The intensity is this percentile over the clusters, which is also its definition in Illumina's extraction metrics."""

BRIGHTEST = 0.1
"""Focus is measured on this share of the clusters, the brightest in the channel."""

MIN_SPOTS = 5
"""Focus is NaN if fewer measurements than this are possible."""

FWHM = 2 * np.sqrt(2 * np.log(2))
"""Full width at half maximum of a Gaussian, in units of its sigma."""


@dataclass(frozen=True)
class ImageQuality:
    """Measurements of the four images of a tile-cycle, (4,) each; intensities are camera counts above background."""

    intensity: NDArray[np.float64]
    """90th percentile over all clusters."""
    called: NDArray[np.float64]
    """Mean over the clusters whose brightest channel is this one; 0 where there are no such clusters."""
    average: NDArray[np.float64]
    """Mean over all clusters."""
    focus_px: NDArray[np.float64]
    """Full width at half maximum of the channel's bright spots, median; NaN where too few can be measured."""


def image_quality(
    pixels: NDArray[np.uint16], offset: NDArray[np.float32], positions: NDArray[np.float32]
) -> ImageQuality:
    """Measure images at the pixels nearest to their clusters.

    Parameters
    ----------
    pixels : (4, H, W) camera counts.
    offset : (4,) background, counts.
    positions : (4, n, 2) y and x of the clusters in each channel, pixels; those beyond the image are left out.
    """
    nearest = np.rint(positions).astype(np.int64)
    inside = np.all((nearest >= 1) & (nearest < np.array(pixels.shape[1:]) - 1), axis=(0, 2))
    nearest = nearest[:, inside]
    if nearest.shape[1] == 0:
        return ImageQuality(np.zeros(4), np.zeros(4), np.zeros(4), np.full(4, np.nan))
    light = np.stack(
        [_counts(image, where, 0, 0) - dark for image, where, dark in zip(pixels, nearest, offset, strict=True)]
    )
    brightest = np.argmax(light, axis=0)
    return ImageQuality(
        intensity=np.maximum(np.percentile(light, PERCENTILE, axis=1), 0),
        called=np.array([_mean(light[channel, brightest == channel]) for channel in range(4)]),
        average=np.maximum(light.mean(axis=1), 0),
        focus_px=np.array([_focus(*one) for one in zip(pixels, nearest, offset, light, strict=True)]),
    )


def _mean(light: NDArray[np.float64]) -> float:
    return max(0.0, float(light.mean())) if len(light) else 0.0


def _focus(
    image: NDArray[np.uint16], nearest: NDArray[np.int64], dark: np.float32, light: NDArray[np.float64]
) -> float:
    """Full width at half maximum of the brightest spots, pixels.

    The second difference of a Gaussian's logarithm is -1 / sigma², wherever its centre lies between the pixels.

    Parameters
    ----------
    nearest : (n, 2) pixel nearest to each cluster.
    dark : background, counts.
    light : (n,) counts above background at these pixels.
    """
    bright = np.argsort(light, kind="stable")[-max(1, int(BRIGHTEST * len(light))) :]
    where, centre = nearest[bright], light[bright]
    curvatures = []
    for y, x in ((1, 0), (0, 1)):
        before, after = (_counts(image, where, sign * y, sign * x) - dark for sign in (-1, 1))
        spot = (before > 0) & (after > 0) & (centre >= before) & (centre >= after)
        with np.errstate(divide="ignore", invalid="ignore"):
            curvatures.append((2 * np.log(centre) - np.log(before) - np.log(after))[spot])
    curved = np.concatenate(curvatures)
    curved = curved[curved > 0]
    return float(FWHM / np.sqrt(np.median(curved))) if len(curved) >= MIN_SPOTS else float("nan")


def _counts(image: NDArray[np.uint16], nearest: NDArray[np.int64], y: int, x: int) -> NDArray[np.float64]:
    return image[nearest[:, 0] + y, nearest[:, 1] + x].astype(np.float64)
