"""The picture that super-resolution aims at."""

import numpy as np
from numpy.typing import NDArray

from calib.learning.simulation import optics
from calib.learning.simulation.tile import SimulatedTile


def superresolved(tile: SimulatedTile, cycle: int, *, gain: NDArray[np.float64]) -> NDArray[np.float32]:
    """Clusters at twice the resolution on a grid twice as fine, without noise and background.

    Parameters
    ----------
    cycle : 1-based.
    gain : (4,) units a photon, for each channel.

    Returns
    -------
    (4, 2H, 2W); a spot's peak is as high as in the frame.
    """
    light = tile.cluster_light(cycle)
    frames = []
    for channel in range(4):
        sigma = tile.conditions.sigma_px[channel]
        # A spot of sigma/2 on half pixels measures sigma again, so equal photons keep equal peaks.
        frames.append(
            optics.spots(
                positions_px=tile.channel_positions(cycle, channel) * 2 + 0.5,
                photons=light[channel] * gain[channel],
                sigma_px=sigma,
                shape=(2 * tile.shape[0], 2 * tile.shape[1]),
            )
        )
    return np.stack(frames).astype(np.float32)
