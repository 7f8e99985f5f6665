"""Channel cross-talk: how much of each base's light each channel shows, estimated from the data, and undone."""

import numpy as np
from numpy.typing import NDArray

LIT = (0.5, 3.0)
"""Typical clusters' brightness, as a multiple of the median: dimmer is noise, brighter is dust."""

MIN_CALLS = 20
"""Calls of a base below which nothing is learnt about it."""

MAX_LEAK = 0.95
"""No channel shows more of another base's light than of its own."""

ROUNDS = 20


def estimate_crosstalk(intensities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Light of each base in each channel, relative to its own channel.

    Every call belongs to the base that is strongest after the matrix so far is undone, in units of that base's
    typical cluster. A column is the median, over the calls of its base, of all channels over the own one, each call
    weighted by the square of its own light, for the variance of its ratio is one over that. Repeated until it settles.
    A base must be brightest in its own channel, in units of that channel's typical cluster.

    Choosing the purest calls instead makes leaks too small: those are the calls whose noise cancels them.

    Parameters
    ----------
    intensities : (..., 4) above background, 1 for about a typical cluster; NaN is left out. Dyes may be unequal.

    Returns
    -------
    (4, 4) rows are channels, columns bases, diagonal 1. A base with too few calls leaks nothing.
    """
    light = _known(intensities)
    matrix = np.eye(4)
    for _ in range(ROUNDS):
        before = matrix.copy()
        bases = unmix(light, matrix)
        relative = bases / brightness(bases)
        strongest, top = np.argmax(relative, axis=1), relative.max(axis=1, initial=0)
        lit = (top > LIT[0]) & (top < LIT[1])
        for base in range(4):
            own = light[lit & (strongest == base) & (light[:, base] > 0)]
            if len(own) >= MIN_CALLS:
                shown = own[:, base]
                ratio = np.quantile(own / shown[:, None], 0.5, axis=0, weights=shown**2, method="inverted_cdf")
                matrix[:, base] = np.clip(ratio, 0, MAX_LEAK)
                matrix[base, base] = 1
        if np.allclose(matrix, before, atol=1e-3):
            break
    return matrix


def unmix(intensities: NDArray[np.floating], crosstalk: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., 4) light of each base from the light in each channel; may be negative."""
    return np.asarray(intensities @ np.linalg.inv(crosstalk).T, np.float64)


def brightness(bases: NDArray[np.floating]) -> NDArray[np.float64]:
    """Median light of each base where it is the strongest and lit.

    Parameters
    ----------
    bases : (..., 4) from :func:`unmix`, about 1 for a typical cluster; NaN is left out.

    Returns
    -------
    (4,); 1 for a base with too few calls, whose noise must not be raised to light.
    """
    listed = _known(bases)
    strongest, top = np.argmax(listed, axis=1), listed.max(axis=1, initial=0)
    found = [top[(strongest == base) & (top > LIT[0] / 2) & (top < LIT[1] * 2)] for base in range(4)]
    return np.array([np.median(own) if len(own) >= MIN_CALLS else 1.0 for own in found])


def _known(intensities: NDArray[np.floating]) -> NDArray[np.float64]:
    """(n, 4) calls of which all channels are known."""
    listed = intensities.reshape(-1, 4).astype(np.float64)
    return listed[np.isfinite(listed).all(axis=1)]
