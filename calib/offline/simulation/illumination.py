"""Structured illumination: the stripes that light the clusters, in three orientations and three phases."""

import numpy as np
from numpy.typing import NDArray
from seqd_client.errors import SeqdError

from calib.offline.simulation.conditions import Pattern

ORIENTATIONS = 3
PHASES = 3


class PatternError(SeqdError):
    """The camera cannot see the stripes of a structured illumination."""

    exit_code = 2


def carrier_frequencies(pattern: Pattern, *, pixel_um: float) -> NDArray[np.float64]:
    """(3, 2) spatial frequency of each orientation, y and x, periods a pixel; orientations lie 60 degrees apart.

    Raises
    ------
    PatternError : a period spans no more than two pixels, the camera's Nyquist limit.
    """
    if pattern.period_um <= 2 * pixel_um:
        raise PatternError(
            f"pattern period_um {pattern.period_um:g}: must be above {2 * pixel_um:g}, two pixels (the Nyquist limit)"
        )
    angles = np.deg2rad(pattern.angle_deg + 60 * np.arange(ORIENTATIONS))
    return np.stack([np.sin(angles), np.cos(angles)], axis=1) * pixel_um / pattern.period_um


def phases(pattern: Pattern) -> NDArray[np.float64]:
    """(3, 3) phase of the stripes at pixel (0, 0), orientation and step; radians."""
    return np.asarray(np.array(pattern.start_phase_rad)[:, None] + 2 * np.pi / PHASES * np.arange(PHASES))


def stripes(
    *, positions_px: NDArray[np.float64], carrier_px: NDArray[np.float64], phase_rad: float, modulation: float
) -> NDArray[np.float64]:
    """Light that falls on positions, relative to even illumination: 1 + m cos(2 pi k r + phase).

    Parameters
    ----------
    positions_px : (n, 2) y and x.
    carrier_px : (2,) k, y and x, cycles a pixel.
    phase_rad : phase at (0, 0).
    modulation : m, 0 to 1.

    Returns
    -------
    (n,) between 1 - m and 1 + m.
    """
    return np.asarray(1 + modulation * np.cos(2 * np.pi * positions_px @ carrier_px + phase_rad))
