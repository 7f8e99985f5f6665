"""Images of a template side by side: SciPy's filters and NumPy's arithmetic let other threads run."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from calib.jointfit.arrays import Array, library_of

T = TypeVar("T")

THREADS = min(8, len(os.sched_getaffinity(0)))
"""At most eight: each holds several images' worth of memory."""


def in_parallel(function: Callable[..., T], arguments: Sequence[tuple[int, ...]]) -> list[T]:
    """Results of calls that do not depend on each other, in the order of their arguments."""
    with ThreadPoolExecutor(THREADS, thread_name_prefix="template") as pool:
        return list(pool.map(lambda given: function(*given), arguments))


COARSENING_PX2 = 1.0
"""Variance that a mean of two pixels, 1/4, and interpolation between such means, 3/4, add along an axis."""


def broad_blur(images: Array, sigma_px: float) -> Array:
    """(b, H, W) float32 images, (b, H, W), under a Gaussian of at least 3 px, mirrored at the edges; at the far edge
    of an odd number of pixels one pixel farther out.

    Means of 2 × 2 pixels are blurred, and what is between them is interpolated: a third of the time of
    :func:`scipy.ndimage.gaussian_filter`. What is smooth stays the same; of white noise, each pixel's share
    lands up to half a pixel from its place, which at 5 px is 0.6 % of the noise.
    """
    library = library_of(images)
    height, width = images.shape[-2:]
    sigma = np.sqrt(sigma_px**2 - COARSENING_PX2) / 2
    even = library.xp.pad(images, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
    coarse = (even[:, ::2, ::2] + even[:, 1::2, ::2] + even[:, ::2, 1::2] + even[:, 1::2, 1::2]) / 4
    blurred = library.gaussian_filter(coarse, (0, sigma, sigma))
    return _finer(_finer(blurred, 1), 2)[:, :height, :width]


def _finer(coarse: Array, axis: int) -> Array:
    """Twice as many pixels along an axis, each a quarter of a coarse pixel from the nearest centre."""
    xp = library_of(coarse).xp
    middle = xp.moveaxis(coarse, axis, 0)
    before, after = (xp.concatenate(parts) for parts in ((middle[:1], middle[:-1]), (middle[1:], middle[-1:])))
    fine = xp.empty((2 * len(middle), *middle.shape[1:]), coarse.dtype)
    fine[::2] = 0.75 * middle + 0.25 * before
    fine[1::2] = 0.75 * middle + 0.25 * after
    return xp.moveaxis(fine, 0, axis)
