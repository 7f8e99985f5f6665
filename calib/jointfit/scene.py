"""What the joint fit knows of a tile."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

NEAR = 4.2
"""Spots farther apart than this many sigma do not share light: their overlap is 1 %."""

CROWDING_MOST = 100.0
"""More than this is as hopeless."""


@dataclass(frozen=True)
class Scene:
    """Clusters and optics of a tile; images are in normalised units."""

    positions: NDArray[np.float64]
    """(n, 2) y and x, pixels, in template coordinates."""
    brightness: NDArray[np.float64]
    """(n,) peak height of the cluster's spot when lit, normalised units."""
    channel_shift_px: NDArray[np.float64]
    """(4, 2)."""
    sigma_px: NDArray[np.float64]
    """(4,) width of a spot in each channel."""
    noise: NDArray[np.float64]
    """(4,) standard deviation of a pixel in each channel, normalised units."""
    crosstalk: NDArray[np.float64]
    """(4, 4) from :func:`calib.crosstalk.estimate_crosstalk`."""


def near_pairs(positions: NDArray[np.float64], sigma_px: NDArray[np.float64]) -> NDArray[np.int64]:
    """(m, 2) pairs of clusters that share light."""
    if len(positions) == 0:
        return np.zeros((0, 2), np.int64)
    return np.asarray(cKDTree(positions).query_pairs(NEAR * float(sigma_px.max()), output_type="ndarray"), np.int64)


def crowding(scene: Scene) -> NDArray[np.float32]:
    """(n,) light of other clusters in a cluster's spot, relative to the cluster's own, when all are lit."""
    pairs = near_pairs(scene.positions, scene.sigma_px)
    squared = np.sum((scene.positions[pairs[:, 0]] - scene.positions[pairs[:, 1]]) ** 2, axis=1)
    shared = np.exp(-squared / (4 * float(scene.sigma_px.mean()) ** 2))
    light = np.maximum(scene.brightness, 1e-6)
    number = len(light)
    others = np.bincount(pairs[:, 0], shared * light[pairs[:, 1]], minlength=number) + np.bincount(
        pairs[:, 1], shared * light[pairs[:, 0]], minlength=number
    )
    return np.asarray(np.minimum(others / light, CROWDING_MOST), np.float32)
