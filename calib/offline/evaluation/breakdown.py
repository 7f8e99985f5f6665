"""Where the errors are: by cycle, by base, by distance to the neighbour."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from calib.offline.evaluation.agreement import agreement
from calib.offline.evaluation.clustermatch import NO_CALL, Matched, share

NEIGHBOUR_EDGES_PX = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, np.inf)
"""Bins of the distance to the nearest other true cluster."""


@dataclass(frozen=True)
class DistanceBin:
    """True clusters whose nearest neighbour is ``low`` to ``high`` pixels away."""

    low: float
    high: float
    clusters: int
    found: float
    yielded: float
    error_rate: float


def error_by_cycle(matched: Matched) -> tuple[float, ...]:
    """Share of wrong bases and no-calls of the clusters found, for each cycle; NaN where none is found."""
    wrong = matched.wrong
    return tuple(share(count, len(wrong)) for count in wrong.sum(axis=0))


def confusion(matched: Matched) -> tuple[tuple[int, ...], ...]:
    """Counts of true bases A, C, G, T (rows) called as A, C, G, T or not at all (columns)."""
    pairs = matched.true_bases.astype(np.int64) * (NO_CALL + 1) + matched.called_bases
    counts = np.bincount(pairs.ravel(), minlength=4 * (NO_CALL + 1)).reshape(4, NO_CALL + 1)
    return tuple(tuple(int(count) for count in row) for row in counts)


def composition(bases: NDArray[np.uint8]) -> tuple[tuple[float, ...], ...]:
    """Share of A, C, G and T in the called bases of each cycle, from (n, cycles) bases; NaN where none is called."""
    counts = np.stack([(bases == base).sum(axis=0) for base in range(4)], axis=1)
    return tuple(tuple(share(count, row.sum()) for count in row) for row in counts)


def by_distance(matched: Matched) -> tuple[DistanceBin, ...]:
    """How clusters are found and read, by the distance to their nearest true neighbour."""
    bins = []
    for low, high in pairwise(NEIGHBOUR_EDGES_PX):
        inside = (matched.neighbour_px >= low) & ((matched.neighbour_px < high) | np.isinf(high))
        figures = agreement(_select_clusters(matched, inside))
        bins.append(DistanceBin(low, high, figures.clusters, figures.found, figures.yielded, figures.error_rate))
    return tuple(bins)


def _select_clusters(matched: Matched, clusters: NDArray[np.bool_]) -> Matched:
    """A selection of the clusters, with their reads."""
    return Matched(
        truth=matched.truth[clusters],
        neighbour_px=matched.neighbour_px[clusters],
        read_of=matched.read_of[clusters],
        bases=matched.bases,
        qualities=matched.qualities,
    )
