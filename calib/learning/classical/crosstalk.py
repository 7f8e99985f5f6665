"""Cross-talk between channels: estimated from the intensities themselves, and undone."""

import numpy as np
from numpy.typing import NDArray

PUREST = 0.5
"""Share of a base's calls, the purest, that the matrix is taken from: the others hold neighbours' light."""

LIT = (0.5, 3.0)
"""Typical clusters' brightness, as a multiple of the median: dimmer is noise, brighter is dust."""

FEWEST = 20
"""Calls of a base below which nothing is learnt about it."""

ROUNDS = 20


def estimate_crosstalk(intensities: NDArray[np.float32]) -> NDArray[np.float64]:
    """Light of each base in each channel, relative to its own channel.

    Every call belongs to the base that is strongest after the matrix so far is undone; a column is
    the median, over the purest calls of its base, of all channels over the own one. Repeated until
    it settles. A base must be brightest in its own channel, in units of that channel's typical cluster.

    Parameters
    ----------
    intensities : (n, cycles, 4) above background, channels on one scale; NaN where a cycle is missing.

    Returns
    -------
    (4, 4) rows are channels, columns bases, diagonal 1. A base with too few calls leaks nothing.
    """
    listed = intensities.reshape(-1, 4).astype(np.float64)
    listed = listed[np.isfinite(listed).all(axis=1)]
    matrix = np.eye(4)
    for _ in range(ROUNDS):
        before = matrix.copy()
        bases = listed @ np.linalg.inv(matrix).T
        relative = bases / brightness(bases)
        strongest, top = np.argmax(relative, axis=1), relative.max(axis=1, initial=0)
        # Too much taken off is as impure as too little: else the purest would be those with noise below zero.
        purity = top / np.maximum(np.abs(relative).sum(axis=1), 1e-9)
        for base in range(4):
            own = np.flatnonzero((strongest == base) & (top > LIT[0]) & (top < LIT[1]))
            if len(own) >= FEWEST:
                pure = own[purity[own] >= np.quantile(purity[own], 1 - PUREST)]
                matrix[:, base] = np.maximum(np.median(listed[pure] / listed[pure, base, None], axis=0), 0)
        if np.allclose(matrix, before, atol=1e-3):
            break
    return matrix


def unmix(intensities: NDArray[np.float32], matrix: NDArray[np.float64]) -> NDArray[np.float32]:
    """Light of each base in its own channel: intensities (..., 4) with the matrix undone; may be negative."""
    return np.asarray(intensities @ np.linalg.inv(matrix).T, np.float32)


def brightness(bases: NDArray[np.floating]) -> NDArray[np.float64]:
    """Median light of each base where it is the strongest and lit.

    Parameters
    ----------
    bases : (..., 4) from :func:`unmix`, about 1 for a typical cluster; NaN is left out.

    Returns
    -------
    (4,); 1 for a base with too few calls, whose noise must not be raised to light.
    """
    listed = bases.reshape(-1, 4)
    listed = listed[np.isfinite(listed).all(axis=1)]
    strongest, top = np.argmax(listed, axis=1), listed.max(axis=1, initial=0)
    found = [top[(strongest == base) & (top > LIT[0] / 2) & (top < LIT[1] * 2)] for base in range(4)]
    return np.array([np.median(own) if len(own) >= FEWEST else 1.0 for own in found])
