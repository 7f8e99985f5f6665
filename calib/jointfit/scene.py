"""The clusters and the optics of a tile, which the joint fit needs."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from calib.jointfit.neighbours import Neighbours


@dataclass(frozen=True)
class Scene:
    """Clusters and optics of a tile; images are in normalised units."""

    positions: NDArray[np.float64]
    """(n, 2) y and x, pixels, in template coordinates."""
    brightness: NDArray[np.float64]
    """(n,) peak height of the cluster's spot when lit, normalised units."""
    channel_shift_px: NDArray[np.float64]
    """(4, 2) shift of each channel, y and x."""
    sigma_px: NDArray[np.float64]
    """(4,) width of a spot in each channel."""
    noise: NDArray[np.float64]
    """(4,) standard deviation of a pixel in each channel, normalised units."""
    crosstalk: NDArray[np.float64]
    """(4, 4) from :func:`calib.crosstalk.estimate_crosstalk`."""

    @cached_property
    def neighbours(self) -> Neighbours:
        """Pairs of clusters that share light; they are the same in every cycle, because all clusters move together."""
        return Neighbours.find(self.positions, self.sigma_px)


def crowding(scene: Scene) -> NDArray[np.float64]:
    """(n,) light of other clusters in a cluster's spot, relative to the cluster's own, when all are lit."""
    first, second = scene.neighbours.pairs
    squared = np.sum((scene.positions[first] - scene.positions[second]) ** 2, axis=1)
    shared = np.exp(-squared / (4 * float(scene.sigma_px.mean()) ** 2))
    light = np.maximum(scene.brightness, 1e-6)
    number = len(light)
    others = np.bincount(first, shared * light[second], minlength=number) + np.bincount(
        second, shared * light[first], minlength=number
    )
    return np.asarray(others / light)


def crowding_beyond(scene: Scene, shape: tuple[int, ...], drift_px: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n,) light that unknown clusters beyond the edges of the template or of a cycle's images add to
    :func:`crowding`.

    The area beyond an edge is assumed to be as bright as the tile on average. From an even brightness ``B`` per
    pixel, a spot at a distance ``d`` from the edge receives ``4 pi sigma² B Phi(-d / sqrt(2) sigma)``.
    """
    sigma = float(scene.sigma_px.mean())
    light = np.maximum(scene.brightness, 1e-6)
    size = np.array(shape)
    places = np.stack([scene.positions, scene.positions + drift_px])
    distance = np.minimum(places + 0.5, size - 0.5 - places).min(axis=(0, 2))
    even = light.sum() / size.prod()
    return np.asarray(4 * np.pi * sigma**2 * even * ndtr(-distance / (np.sqrt(2) * sigma)) / light)
