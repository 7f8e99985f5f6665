"""Fast smoothing with broad Gaussians, and threads for the images of a template."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from calib.jointfit.arrays import Array, library_of

T = TypeVar("T")

THREADS = min(8, len(os.sched_getaffinity(0)))
"""There are at most eight threads, because each needs the memory of several images."""


def in_parallel(function: Callable[..., T], arguments: Sequence[tuple[int, ...]]) -> list[T]:
    """Call a function in threads and return its results in the order of the arguments.

    SciPy's filters and NumPy's arithmetic release the interpreter's lock, so that the threads run at the same time.
    """
    with ThreadPoolExecutor(THREADS, thread_name_prefix="template") as pool:
        return list(pool.map(lambda given: function(*given), arguments))


COARSENING_PX2 = 1.0
"""Variance, in square pixels, that :func:`broad_blur` adds along each axis besides its Gaussian: the mean of two
pixels adds 1/4, and the interpolation of these means adds 3/4."""


def broad_blur(images: Array, sigma_px: float) -> Array:
    """Smooth (b, H, W) float32 images with a Gaussian of at least 3 px.

    Images are mirrored at their edges; where an axis has an odd number of pixels, its last pixel is repeated first.

    Means of 2 × 2 pixels are smoothed and then interpolated, in a third of the time of
    :func:`scipy.ndimage.gaussian_filter`. For smooth images the result is the same; white noise moves by up to half a
    pixel, and with a sigma of 5 px the result then differs by 0.6 %.
    """
    library = library_of(images)
    height, width = images.shape[-2:]
    sigma = np.sqrt(sigma_px**2 - COARSENING_PX2) / 2
    even = library.xp.pad(images, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
    coarse = (even[:, ::2, ::2] + even[:, 1::2, ::2] + even[:, ::2, 1::2] + even[:, 1::2, 1::2]) / 4
    blurred = library.gaussian_filter(coarse, (0, sigma, sigma))
    return _finer(_finer(blurred, 1), 2)[:, :height, :width]


def _finer(coarse: Array, axis: int) -> Array:
    """Interpolate twice as many pixels along an axis. Each lies a quarter of a coarse pixel from the nearest coarse
    pixel's centre.
    """
    xp = library_of(coarse).xp
    middle = xp.moveaxis(coarse, axis, 0)
    before, after = (xp.concatenate(parts) for parts in ((middle[:1], middle[:-1]), (middle[1:], middle[-1:])))
    fine = xp.empty((2 * len(middle), *middle.shape[1:]), coarse.dtype)
    fine[::2] = 0.75 * middle + 0.25 * before
    fine[1::2] = 0.75 * middle + 0.25 * after
    return xp.moveaxis(fine, 0, axis)
