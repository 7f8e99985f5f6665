"""Channel cross-talk: how much of each base's light each channel shows, estimated from the data."""

import numpy as np
from numpy.typing import NDArray

ROUNDS = 8
DIMMEST = 40
"""Percentile of brightness below which a call says little about cross-talk."""

PURE = 0.4
"""A call counts while its second channel stays below this share of the first."""

FEWEST = 20
"""Calls of a base that its column is estimated from, at least."""

MOST = 0.95
"""No channel shows more of another base's light than of its own."""


def estimate_crosstalk(intensities: NDArray[np.floating]) -> NDArray[np.float64]:
    """(4, 4) light of each base (column) in each channel (row), relative to its own channel.

    Calls are made with the matrix so far; of each base's pure calls the median ratio of the channels
    gives its column; repeated until it settles. A base with too few calls keeps no cross-talk.

    Parameters
    ----------
    intensities : (..., 4) in units in which every base is about equally bright in its own channel.
    """
    light = intensities.reshape(-1, 4).astype(np.float64)
    light = light[np.isfinite(light).all(axis=1)]
    matrix = np.eye(4)
    if len(light) == 0:
        return matrix
    for _ in range(ROUNDS):
        unmixed = unmix(light, matrix)
        ranked = np.sort(unmixed, axis=1)
        base, brightest = np.argmax(unmixed, axis=1), ranked[:, 3]
        pure = (brightest > max(np.percentile(brightest, DIMMEST), 0)) & (ranked[:, 2] < PURE * brightest)
        for column in range(4):
            own = light[pure & (base == column)]
            own = own[own[:, column] > 0]
            if len(own) >= FEWEST:
                matrix[:, column] = np.clip(np.median(own / own[:, column, None], axis=0), 0, MOST)
                matrix[column, column] = 1
    return matrix


def unmix(intensities: NDArray[np.floating], crosstalk: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., 4) light of each base from the light in each channel."""
    return np.asarray(intensities @ np.linalg.inv(crosstalk).T, np.float64)
