"""Gaussian spots at sub-pixel positions: this module draws them, and sums images weighted by them."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from calib.jointfit.arrays import Array, Library, library_of

REACH = 3.2
"""Spots end at this many sigma, where 0.6 % of the peak is left."""


class Spots:
    """Spots of peak height 1 on a stack of images; every image has the same number of spots.

    Parameters
    ----------
    positions : (b, n, 2) y and x on each image, pixels; what lies outside the image is cut.
    sigma : (b,) standard deviation on each image, pixels.
    shape : (H, W).
    """

    def __init__(self, positions: Array, sigma: NDArray[np.floating], shape: tuple[int, int]) -> None:
        self._library = library_of(positions)
        self._number = positions.shape[:2]
        self._shape = (len(positions), *shape)
        self._parts = list(_parts(self._library, positions, np.asarray(sigma, np.float64), shape))

    @property
    def nearest(self) -> Array:
        """(b, n) index of the pixel nearest to each spot, in the flattened stack of images."""
        return self._joined([part.nearest for part in self._parts], np.int64)

    def read(self, images: Array) -> Array:
        """(b, n) float32 sums of the images, (b, H, W), under each spot."""
        dot, flat = self._library.dot, images.ravel()
        read = [dot(dot(flat[part.index], part.weights[1], axis=1), part.weights[0], axis=0) for part in self._parts]
        return self._joined(read, np.float32)

    def read_moments(self, images: Array) -> tuple[Array, Array, Array]:
        """(b, n) sums of the images under each spot times the distance in y, in x, and squared."""
        dot, flat = self._library.dot, images.ravel()
        found = []
        for part in self._parts:
            pixels, powers = flat[part.index], part.powers
            over_x = [dot(pixels, power[1], axis=1) for power in powers]
            y, x = dot(over_x[0], powers[1][0], axis=0), dot(over_x[1], powers[0][0], axis=0)
            squared = dot(over_x[0], powers[2][0], axis=0) + dot(over_x[2], powers[0][0], axis=0)
            found.append((y, x, squared))
        y, x, squared = (self._joined([one[kind] for one in found], np.float32) for kind in range(3))
        return y, x, squared

    def draw(self, heights: Array) -> Array:
        """(b, H, W) float32 images of spots with the given peak heights, (b, n)."""
        flat = heights.astype(np.float32).ravel()
        stamps = ((part.index, (part.weights[0] * flat[part.spots])[:, None] * part.weights[1]) for part in self._parts)
        return self._library.sum_at(int(np.prod(self._shape)), stamps).reshape(self._shape)

    def _joined(self, parts: list[Array], dtype: type) -> Array:
        xp = self._library.xp
        return (xp.concatenate(parts) if parts else xp.zeros(0, dtype)).reshape(self._number)


@dataclass(frozen=True)
class _Part:
    """Some of the spots, all of one radius. The last axis of the arrays counts the spots, so that arithmetic on the
    arrays reads consecutive memory.
    """

    spots: slice
    """The spots of this part, counted over all images."""
    offsets: Array
    """(2, taps, m) distance of each row and column from the spot, pixels."""
    weights: Array
    """(2, taps, m) weight of each row and column; 0 outside the image."""
    rows: Array
    """(taps, m) flat index of the first pixel of each row."""
    columns: Array
    """(taps, m) column of each pixel."""

    @property
    def index(self) -> Array:
        """(taps, taps, m) flat index of the pixels."""
        return self.rows[:, None] + self.columns

    @property
    def nearest(self) -> Array:
        """(m,) flat index of the pixel in the middle."""
        middle = len(self.rows) // 2
        return self.rows[middle] + self.columns[middle]

    @property
    def powers(self) -> list[Array]:
        """Weights times the distance to the power of 0, 1 and 2."""
        first = self.weights * self.offsets
        return [self.weights, first, first * self.offsets]


def _parts(library: Library, positions: Array, sigma: NDArray[np.float64], shape: tuple[int, int]) -> Iterator[_Part]:
    number = positions.shape[1]
    listed = positions.reshape(-1, 2).T
    radii = np.ceil(REACH * sigma).astype(int).tolist()
    for radius, images in groupby(range(len(radii)), radii.__getitem__):
        run = list(images)
        step = max(1, library.max_elements // (2 * radius + 1) ** 2)
        for start in range(run[0] * number, (run[-1] + 1) * number, step):
            spots = slice(start, min(start + step, (run[-1] + 1) * number))
            yield _part(library.xp, listed[:, spots], spots, number, radius, sigma, shape)


def _part(
    xp: Array,
    positions: Array,
    spots: slice,
    number: int,
    radius: int,
    sigma: NDArray[np.float64],
    shape: tuple[int, int],
) -> _Part:
    image = xp.arange(spots.start, spots.stop) // number
    size = xp.asarray(shape)[:, None]
    taps = xp.arange(-radius, radius + 1)[:, None]
    # A spot far outside is moved to just outside, where its indices do not overflow.
    positions = xp.clip(positions, -2.0 * radius, size + 2.0 * radius)
    corner = xp.rint(positions)
    offsets = (taps - (positions - corner)[:, None]).astype(np.float32)
    pixels = corner.astype(np.int64)[:, None] + taps
    inside = (pixels >= 0) & (pixels < size[:, None])
    spread = xp.asarray(1 / (2 * sigma**2), np.float32)[image]
    weights = xp.exp(-(offsets**2) * spread) * inside
    rows, columns = xp.clip(pixels, 0, size[:, None] - 1)
    return _Part(spots, offsets, weights, rows * shape[1] + image * (shape[0] * shape[1]), columns)
