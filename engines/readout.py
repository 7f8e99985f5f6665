"""Reading the probability map at cluster positions."""

import numpy as np
from numpy.typing import NDArray

READ_SIGMA_PX = 0.6
"""Width of the weight around a position. A centre's probability spreads over the pixels that may
hold it, and positions are known to about a tenth of a pixel."""

_TAPS = np.arange(-1, 3)


def read_centres(probabilities: NDArray[np.float32], positions: NDArray[np.float32]) -> NDArray[np.float32]:
    """Evidence for a centre of each base at each position.

    The probability of each base in the 4 × 4 pixels around the position where its channel shows
    the cluster, weighted by ``exp(-d² / 2σ²)``.

    Parameters
    ----------
    probabilities : (5, H, W) from the network.
    positions : (4, n, 2) y and x of every cluster in each channel's image.

    Returns
    -------
    (n, 4) in [0, about 1]; 0 outside the image.
    """
    _, height, width = probabilities.shape
    channels, number, _ = positions.shape
    # Far outside is as good as just outside, and safe to index.
    inside = np.clip(positions, -10.0, np.array([height, width], np.float32) + 10.0)
    centres = np.zeros((number, channels), np.float32)
    for channel in range(channels):
        plane = np.pad(probabilities[channel + 1], 13)
        corner = np.floor(inside[channel]).astype(np.int64)
        fraction = inside[channel] - corner
        weights = np.exp(-((_TAPS - fraction[:, :, None]) ** 2) / (2 * READ_SIGMA_PX**2)).astype(np.float32)
        rows = corner[:, 0, None] + _TAPS + 13
        columns = corner[:, 1, None] + _TAPS + 13
        patch = plane[rows[:, :, None], columns[:, None, :]]
        centres[:, channel] = np.einsum("nyx,ny,nx->n", patch, weights[:, 0], weights[:, 1])
    return centres
