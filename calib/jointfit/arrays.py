"""The module lets one implementation of the fit use two array libraries: NumPy on a CPU, CuPy on an NVIDIA GPU.

Code that uses :class:`Library` runs on both. CuPy is imported when it gets its first array. Every operation gives the
same bits every time, on a GPU too. For that, a GPU adds either in trees of fixed shape or in integers, for which the
order of the additions does not matter. It never adds floats atomically, and it uses no library routine that chooses
the order of its additions itself.
"""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.special import erf

Array: TypeAlias = Any
"""An array of NumPy or of CuPy. All arrays of one call must be of the same library and on the same device."""

FIXED_POINT = 2.0**30
"""Sums in integers of 64 bits have this number of steps per unit: the resolution is 1e-9, the range is 8e9."""


@dataclass(frozen=True)
class Library:
    """An array library, with the functions that differ between the two libraries."""

    xp: ModuleType
    """The namespace, ``numpy`` or ``cupy``."""
    gaussian_filter: Callable[..., Array]
    """:func:`scipy.ndimage.gaussian_filter`."""
    erf: Callable[[Array], Array]
    dot: Callable[..., Array]
    """``dot(a, b, axis=..., keepdims=...)``: sum of the products along an axis, after broadcasting."""
    sum_at: Callable[[int, Iterable[tuple[Array, Array]]], Array]
    """``sum_at(size, pieces)``: (size,) float32 sums. A piece is an array of indices and a float32 array of the
    values to add there, both of one shape."""
    fuse: Callable[[Callable[..., Array]], Callable[..., Array]]
    """Compiles a function that only does arithmetic on arrays, so that it passes over the memory once."""
    to_host: Callable[[Array], np.ndarray[Any, Any]]
    max_elements: int
    """Largest number of elements of an intermediate array. Such an array fits a processor's cache; on a GPU it is
    large enough to use the whole GPU, and limits the memory."""


def library_of(array: Array) -> Library:
    """The library of an array of NumPy or CuPy."""
    return NUMPY if isinstance(array, np.ndarray) else _cupy()


def fixed_point_sum(
    xp: ModuleType, scatter_add: Callable[..., None], size: int, pieces: Iterable[tuple[Array, Array]]
) -> Array:
    """:attr:`Library.sum_at` in fixed point: the same bits in whatever order the additions happen.

    The sums are unsigned, because GPUs add only unsigned integers of 64 bits atomically; they wrap round as signed
    ones do.
    """
    total = xp.zeros(size, xp.uint64)
    for index, value in pieces:
        steps = (value * FIXED_POINT).astype(xp.int64)
        scatter_add(total, index.ravel(), steps.ravel().view(xp.uint64))
    return total.view(xp.int64).astype(xp.float32) / FIXED_POINT


def _sum_of_products(a: Array, b: Array, *, axis: int, keepdims: bool = False) -> Array:
    return (a * b).sum(axis=axis, keepdims=keepdims)


def _sum_at(size: int, pieces: Iterable[tuple[Array, Array]]) -> Array:
    total = np.zeros(size, np.float32)
    for index, value in pieces:
        # NumPy adds flat arrays much faster.
        np.add.at(total, index.ravel(), value.ravel())
    return total


NUMPY = Library(
    xp=np,
    gaussian_filter=gaussian_filter,
    erf=erf,
    dot=_sum_of_products,
    sum_at=_sum_at,
    fuse=lambda function: function,
    to_host=np.asarray,
    max_elements=2**17,
)


@functools.cache
def _cupy() -> Library:
    cupy = import_module("cupy")
    return Library(
        xp=cupy,
        gaussian_filter=import_module("cupyx.scipy.ndimage").gaussian_filter,
        erf=import_module("cupyx.scipy.special").erf,
        dot=cupy.ReductionKernel("T x, T y", "T z", "x * y", "a + b", "z = a", "0", "sum_of_products"),
        sum_at=functools.partial(fixed_point_sum, cupy, import_module("cupyx").scatter_add),
        fuse=functools.cache(cupy.fuse),
        to_host=cupy.asnumpy,
        max_elements=2**26,
    )
