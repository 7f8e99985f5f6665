"""Cross-talk of the channels: the share of each base's light in each channel, its estimate and its correction."""

import numpy as np
from numpy.typing import NDArray

LIT = (0.5, 3.0)
"""Smallest and largest brightness of a cluster, as a multiple of the median. Peaks outside this range are not used,
because dimmer ones are taken for noise and brighter ones for dust."""

MIN_CALLS = 20
"""A base with fewer calls than this keeps its start value."""

MAX_LEAK = 0.95
"""Upper bound of a base's light in another channel, relative to its own channel."""

ROUNDS = 20


def estimate_crosstalk(intensities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Light of each base in each channel, relative to its own channel.

    The estimate is repeated until it converges. Each time, the present matrix is inverted, and every call belongs to
    the base that is strongest, in units of that base's typical cluster. A column of the new matrix is the median of
    the ratios of each channel to the base's own channel, over the calls of the base. Each call has the weight of the
    square of its own light, because the variance of its ratio is proportional to the inverse.
    A base must be brightest in its own channel, in units of that channel's typical cluster.

    The estimate must not use only the purest calls: noise has made their leaks too small.

    Parameters
    ----------
    intensities : (..., 4) light above background, about 1 for a typical cluster; NaN is left out. Dyes may be unequal.

    Returns
    -------
    (4, 4) rows are channels, columns bases, diagonal 1. A base with too few calls has 0 in all other channels.
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
    (4,) medians; 1 for a base with too few calls, whose noise would otherwise be scaled up to light.
    """
    listed = _known(bases)
    strongest, top = np.argmax(listed, axis=1), listed.max(axis=1, initial=0)
    found = [top[(strongest == base) & (top > LIT[0] / 2) & (top < LIT[1] * 2)] for base in range(4)]
    return np.array([np.median(own) if len(own) >= MIN_CALLS else 1.0 for own in found])


def _known(intensities: NDArray[np.floating]) -> NDArray[np.float64]:
    """(n, 4) calls of which all channels are known."""
    listed = intensities.reshape(-1, 4).astype(np.float64)
    return listed[np.isfinite(listed).all(axis=1)]
