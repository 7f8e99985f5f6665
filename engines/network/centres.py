"""Reading the probability map at cluster positions."""

import numpy as np
from numpy.typing import NDArray

READ_SIGMA_PX = 0.6
"""Width of the weight around a position. The probability of a centre spreads over several
pixels, and positions are known to about a tenth of a pixel."""

TAPS = (-1, 0, 1, 2)
"""Rows and columns that are read, relative to the row and column at or before the position."""

OUTSIDE_PX = 3
"""At this distance from the outermost pixels the evidence is read from no pixel. Positions farther away are replaced by
positions at this distance."""

PADDING_PX = OUTSIDE_PX + max(TAPS)
"""Zeros around the map, so that every position can read all its taps."""


def read_centres(probabilities: NDArray[np.float32], positions: NDArray[np.float32]) -> NDArray[np.float32]:
    """Evidence that each position is the centre of a cluster of each base.

    The evidence is the sum of the base's probability in the 4 × 4 pixels around the cluster's position in the
    base's channel, each weighted by ``exp(-d² / 2σ²)``.

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
    last = np.array([height - 1, width - 1], np.float32)
    near = np.clip(positions, -OUTSIDE_PX, last + OUTSIDE_PX)
    taps = np.array(TAPS)
    centres = np.zeros((number, channels), np.float32)
    for channel in range(channels):
        plane = np.pad(probabilities[channel + 1], PADDING_PX)
        corner = np.floor(near[channel]).astype(np.int64)
        fraction = near[channel] - corner
        weights = np.exp(-((taps - fraction[:, :, None]) ** 2) / (2 * READ_SIGMA_PX**2)).astype(np.float32)
        rows = corner[:, 0, None] + taps + PADDING_PX
        columns = corner[:, 1, None] + taps + PADDING_PX
        patch = plane[rows[:, :, None], columns[:, None, :]]
        centres[:, channel] = np.einsum("nyx,ny,nx->n", patch, weights[:, 0], weights[:, 1])
    return centres
