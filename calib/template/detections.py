"""Clusters that the network detects: in each of the first cycles, and in all of them together."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, shift, uniform_filter
from scipy.spatial import cKDTree

MIN_DETECTION = 0.08
"""Probability below which a pixel is no detection."""

KERNEL_PX = 0.4
"""Sigma of the Gaussian that each detection adds to the density; it is the spread of one cluster's detections over the
cycles."""

RESOLUTION_PX = 0.8
"""Two candidates closer than this are taken as one cluster."""

REACH_PX = 1.2
"""A detection farther than this from every cluster belongs to none."""

MIN_SUPPORT = 0.45
"""Share of the cycles that must show a cluster."""

ROUNDS = 3


@dataclass(frozen=True)
class Detections:
    """Centres seen in single cycles, in template coordinates."""

    positions: NDArray[np.float64]
    """(m, 2) y and x."""
    mass: NDArray[np.float64]
    """(m,) probability of a centre there, 0-1."""


def detect(
    probabilities: NDArray[np.float32],
    *,
    drift_px: NDArray[np.float32],
    channel_shift_px: NDArray[np.float32],
) -> Detections:
    """Local maxima of each base's probability map, at the centre of mass of their 3 × 3 pixels.

    Parameters
    ----------
    probabilities : (5, H, W) of one cycle.
    drift_px, channel_shift_px : (2,) and (4, 2), subtracted from the positions.
    """
    positions, masses = [], []
    for channel in range(4):
        plane = probabilities[channel + 1]
        peaks = (plane == maximum_filter(plane, 3)) & (plane > MIN_DETECTION)
        y, x = np.nonzero(peaks)
        padded = np.pad(plane, 1)
        taps = np.arange(3)
        patch = padded[(y[:, None] + taps)[:, :, None], (x[:, None] + taps)[:, None, :]].astype(np.float64)
        mass = patch.sum(axis=(1, 2))
        dy = (patch.sum(axis=2) @ (taps - 1)) / mass
        dx = (patch.sum(axis=1) @ (taps - 1)) / mass
        positions.append(np.stack([y + dy, x + dx], axis=1) - drift_px - channel_shift_px[channel])
        masses.append(np.minimum(mass, 1.0))
    return Detections(np.concatenate(positions), np.concatenate(masses))


def merge(
    detections: list[Detections], *, shape: tuple[int, int], min_support: float = MIN_SUPPORT
) -> NDArray[np.float32]:
    """Cluster positions from the detections of several cycles.

    A cluster lights up in one channel in every cycle, so its detections lie at one place. Two clusters
    that share pixels have separate detections in the cycles in which they light up in different
    channels. Candidates are the maxima of the detections' density; each detection then counts for
    the nearest candidate only, and a candidate that too few cycles support is dropped.

    Parameters
    ----------
    detections : one for each template cycle.
    shape : (H, W) of the tile; positions outside are dropped.
    min_support : share of the cycles that must show a cluster.

    Returns
    -------
    (n, 2) y and x, ordered by y, then x.
    """
    if not detections:
        return np.zeros((0, 2), np.float32)
    positions = np.concatenate([found.positions for found in detections])
    mass = np.concatenate([found.mass for found in detections])
    cycle = np.concatenate([np.full(len(found.mass), index) for index, found in enumerate(detections)])
    centres = _density_maxima(positions, mass)
    for _ in range(ROUNDS):
        if len(centres) == 0:
            break
        distance, owner = cKDTree(centres).query(positions, distance_upper_bound=REACH_PX)
        near = np.isfinite(distance)
        weight = mass[near] * np.exp(-(distance[near] ** 2) / (2 * KERNEL_PX**2))
        total = np.bincount(owner[near], weight, minlength=len(centres))
        moved = np.stack(
            [np.bincount(owner[near], weight * positions[near, axis], minlength=len(centres)) for axis in (0, 1)],
            axis=1,
        )
        shown = _support(owner[near], cycle[near], mass[near], len(centres), len(detections))
        kept = (total > 0) & (shown >= min_support)
        centres = moved[kept] / total[kept, None]
    inside = np.all((centres >= -0.5) & (centres < np.array(shape) - 0.5), axis=1)
    centres = centres[inside]
    order = np.lexsort((centres[:, 1], centres[:, 0]))
    return centres[order].astype(np.float32)


def support(
    probabilities: list[NDArray[np.float32]], *, drift_px: NDArray[np.float32], channel_shift_px: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(H, W) share of the cycles in which the network sees a cluster within a pixel, in template coordinates.

    Parameters
    ----------
    probabilities : (5, H, W) of each cycle, at least one.
    drift_px, channel_shift_px : (cycles, 2) and (4, 2).
    """
    seen = np.zeros(probabilities[0].shape[1:], np.float32)
    for maps, drift in zip(probabilities, drift_px, strict=True):
        aligned = [shift(maps[c + 1], -(drift + channel_shift_px[c]), order=1) for c in range(4)]
        seen += np.minimum(9 * uniform_filter(np.sum(aligned, axis=0), 3), 1) / len(probabilities)
    return seen


def _density_maxima(positions: NDArray[np.float64], mass: NDArray[np.float64]) -> NDArray[np.float64]:
    """(k, 2) positions of the detections with the highest density around them, no two closer than the resolution."""
    if len(positions) == 0:
        return np.zeros((0, 2))
    pairs = cKDTree(positions).query_pairs(3 * KERNEL_PX, output_type="ndarray")
    squared = np.sum((positions[pairs[:, 0]] - positions[pairs[:, 1]]) ** 2, axis=1)
    kernel = np.exp(-squared / (2 * KERNEL_PX**2))
    first, second = pairs.T
    density = (
        mass
        + np.bincount(first, kernel * mass[second], minlength=len(mass))
        + np.bincount(second, kernel * mass[first], minlength=len(mass))
    )
    # Ranks make the order strict, so that of two detections of equal density only one is kept.
    rank = np.empty(len(density), np.int64)
    rank[np.argsort(density, kind="stable")] = np.arange(len(density))
    close = pairs[squared < RESOLUTION_PX**2]
    first_loses = rank[close[:, 0]] < rank[close[:, 1]]
    best = np.ones(len(density), bool)
    best[np.where(first_loses, close[:, 0], close[:, 1])] = False
    return positions[best]


def _support(
    owner: NDArray[np.int64],
    cycle: NDArray[np.int64],
    mass: NDArray[np.float64],
    clusters: int,
    cycles: int,
) -> NDArray[np.float64]:
    """(clusters,) mean over the cycles of the probability that a cycle shows the cluster.

    ``owner``, ``cycle`` and ``mass`` are the nearest cluster, the cycle and the probability of each detection.
    """
    shown = np.bincount(owner * cycles + cycle, mass, minlength=clusters * cycles)
    return np.asarray(np.minimum(shown, 1.0).reshape(clusters, cycles).mean(axis=1))
