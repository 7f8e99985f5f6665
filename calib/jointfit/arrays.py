"""One mathematics where the images are: NumPy on a CPU, CuPy on an NVIDIA GPU.

Code over :class:`Library` runs on both. CuPy is imported when its first array is handed in. Every operation gives the
same bits every time, on a GPU too: sums there go through trees of fixed shape or through integers, whose order
does not matter, never through atomics of floats, and no product goes to a library that chooses its own order.
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
"""An array of NumPy or of CuPy; those of one call are all of one library and on one device."""

FIXED_POINT = 2.0**30
"""Steps in a unit where sums go through integers of 64 bits: 1e-9 fine, and room for 8e9."""


@dataclass(frozen=True)
class Library:
    """An array library, and what it spells differently or does best in its own way."""

    xp: ModuleType
    """The namespace, ``numpy`` or ``cupy``."""
    gaussian_filter: Callable[..., Array]
    """:func:`scipy.ndimage.gaussian_filter`."""
    erf: Callable[[Array], Array]
    dot: Callable[..., Array]
    """``dot(a, b, axis=..., keepdims=...)``: sum of the products along an axis, after broadcasting."""
    sum_at: Callable[[int, Iterable[tuple[Array, Array]]], Array]
    """(size,) float32 sums of pieces of (index, float32 value), arrays of one shape, at each index."""
    fused: Callable[[Callable[..., Array]], Callable[..., Array]]
    """Makes one pass over memory of a function of arrays that does arithmetic only."""
    to_host: Callable[[Array], np.ndarray[Any, Any]]
    at_once: int
    """Elements an intermediate array may have: what fits a processor's cache, or keeps a GPU busy in bounded memory."""


def library_of(array: Array) -> Library:
    """The library of an array of NumPy or CuPy."""
    return NUMPY if isinstance(array, np.ndarray) else _cupy()


def fixed_point_sum(
    xp: ModuleType, scatter_add: Callable[..., None], size: int, pieces: Iterable[tuple[Array, Array]]
) -> Array:
    """:attr:`Library.sum_at` in fixed point: the same bits in whatever order the additions happen.

    Unsigned, because that is what GPUs add atomically in 64 bits; it wraps round as signed integers do.
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
        # Flat arrays take the fast way.
        np.add.at(total, index.ravel(), value.ravel())
    return total


NUMPY = Library(
    xp=np,
    gaussian_filter=gaussian_filter,
    erf=erf,
    dot=_sum_of_products,
    sum_at=_sum_at,
    fused=lambda function: function,
    to_host=np.asarray,
    at_once=2**17,
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
        fused=functools.cache(cupy.fuse),
        to_host=cupy.asnumpy,
        at_once=2**26,
    )
