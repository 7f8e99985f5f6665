"""The module finds clusters that share light, and makes the matrix of the joint fit, which says how much they share."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from calib.jointfit.arrays import NUMPY, Array, Library, library_of

NEAR = 4.2
"""Spots farther apart than this many sigma are taken as separate; their overlap is below 1 %."""


@dataclass(frozen=True)
class Neighbours:
    """Pairs of clusters that share light.

    The neighbours of each cluster are numbered 0, 1, 2 and so on. With these numbers a matrix can be filled without
    sorting, and every entry is written once.
    """

    number: int
    """Number of clusters."""
    max_neighbours: int
    """Largest number of neighbours of a cluster."""
    pairs: Array
    """(2, m) int32 indices of clusters, each pair once."""
    rank: Array
    """(2, m) int32: for each pair, the number of the second cluster among the neighbours of the first, and vice
    versa."""

    @classmethod
    def find(cls, positions: NDArray[np.float64], sigma_px: NDArray[np.float64]) -> "Neighbours":
        """Find the neighbours among clusters at (n, 2) positions, for spots of the largest of the widths
        ``sigma_px``.
        """
        number = len(positions)
        if number == 0:
            return cls(0, 0, np.zeros((2, 0), np.int32), np.zeros((2, 0), np.int32))
        pairs = cKDTree(positions).query_pairs(NEAR * float(sigma_px.max()), output_type="ndarray")
        # The pairs are sorted by cluster: clusters that are close in the image are then close in memory.
        pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))].T.astype(np.int32)
        ends = pairs.ravel()
        order = np.argsort(ends, kind="stable")
        rank = np.empty(len(ends), np.int32)
        rank[order] = np.arange(len(ends)) - _starts(ends, number)[ends[order]]
        return cls(number, int(rank.max(initial=-1)) + 1, pairs, rank.reshape(2, -1))

    def copy_to(self, library: Library) -> "Neighbours":
        """Return these neighbours with arrays of the given library."""
        if library is NUMPY:
            return self
        return replace(self, pairs=library.xp.asarray(self.pairs), rank=library.xp.asarray(self.rank))

    @cached_property
    def rows(self) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
        """The matrix in CSR form: (2, m) places of the two entries of each pair, (2m,) columns, (n + 1,) row starts."""
        starts = _starts(self.pairs.ravel(), self.number).astype(np.int32)
        places = starts[self.pairs] + self.rank
        columns = np.empty(self.pairs.size, np.int32)
        columns[places] = self.pairs[::-1]
        return places, columns, starts


@dataclass(frozen=True)
class Overlap:
    """Inner products of the spots of each image of a stack: one symmetric matrix per image."""

    own: Array
    """(b, n) inner product of each spot with itself."""
    others: Callable[[Array], Array]
    """Multiplies the matrix without its diagonal by vectors (b, n)."""


def overlaps(positions: Array, neighbours: Neighbours, sigma: NDArray[np.float64], shape: tuple[int, int]) -> Overlap:
    """Inner products of the spots within the images.

    The product of two Gaussians is a Gaussian between them: ``pi sigma² exp(-d² / 4 sigma²)``, times
    the share of it that lies on the image. If sigma is 0.7 px or more, the result depends by less than 1 % on how the
    positions lie relative to the pixel grid.

    Parameters
    ----------
    positions : (b, n, 2) on each image, pixels.
    sigma : (b,) standard deviation on each image, pixels.
    shape : (H, W).
    """
    library = library_of(positions)
    width = library.xp.asarray(sigma)[:, None]
    neighbours = neighbours.copy_to(library)
    first, second = positions[:, neighbours.pairs[0]], positions[:, neighbours.pairs[1]]
    matrix = csr_product if library is NUMPY else padded_product
    return Overlap(
        own=_products(library, positions, positions, width, shape),
        others=matrix(neighbours, _products(library, first, second, width, shape)),
    )


def _products(library: Library, first: Array, second: Array, sigma: Array, shape: tuple[int, int]) -> Array:
    """(b, m) float32 inner products of the spots at ``first`` and ``second``."""
    xp, erf = library.xp, library.erf
    apart = first - second
    value = np.pi * sigma**2 * xp.exp(-(apart[..., 0] ** 2 + apart[..., 1] ** 2) / (4 * sigma**2))
    for axis in (0, 1):
        middle = ((first[..., axis] + second[..., axis]) / 2).astype(np.float32)
        scale = (1 / sigma).astype(np.float32)
        value = value * ((erf((shape[axis] - 0.5 - middle) * scale) + erf((middle + 0.5) * scale)) / 2)
    return value.astype(np.float32)


def csr_product(neighbours: Neighbours, values: Array) -> Callable[[Array], Array]:
    """Return a function that multiplies vectors by the matrix whose entries are the pairs' (b, m) values.

    The matrix has CSR form, which is fastest on a CPU.
    """
    places, columns, starts = neighbours.rows
    matrices = []
    for value in values:
        data = np.empty(len(columns), np.float32)
        data[places] = value
        matrices.append(csr_matrix((data, columns, starts), shape=(neighbours.number, neighbours.number)))
    return lambda light: np.stack([matrix @ row for matrix, row in zip(matrices, light, strict=True)])


def padded_product(neighbours: Neighbours, values: Array) -> Callable[[Array], Array]:
    """Return the same function as :func:`csr_product`, with all rows padded with zeros to one length.

    So the order of the additions in every sum is fixed on a GPU too.
    """
    library = library_of(values)
    # The table has at least one row, because a sum over no rows is not possible on a GPU.
    shape = (max(neighbours.max_neighbours, 1), neighbours.number)
    index = library.xp.zeros(shape, np.int32)
    table = library.xp.zeros((len(values), *shape), np.float32)
    index[neighbours.rank, neighbours.pairs] = neighbours.pairs[::-1]
    table[:, neighbours.rank, neighbours.pairs] = values[:, None]
    return lambda light: library.dot(light[:, index], table, axis=1)


def _starts(ends: NDArray[np.int32], number: int) -> NDArray[np.int64]:
    """(n + 1,) where each cluster's entries begin when they are sorted by cluster."""
    return np.concatenate([[0], np.cumsum(np.bincount(ends, minlength=number))])
