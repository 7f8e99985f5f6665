"""Light in a frame that does not come from clusters."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from calib.offline.simulation.optics import spots


def illumination(*, shape: tuple[int, int], falloff: float) -> NDArray[np.float64]:
    """Illumination profile, 1 in the centre and ``1 - falloff`` in the corners, parabolic; (H, W)."""
    y = np.linspace(-1, 1, shape[0])[:, None]
    x = np.linspace(-1, 1, shape[1])[None, :]
    return 1 - falloff * (y**2 + x**2) / 2


def structures(
    *, shape: tuple[int, int], number: int, photons_px: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Bright structures that are no clusters: cell-like patches, filaments and out-of-focus blobs.

    Parameters
    ----------
    number : how many to draw.
    photons_px : brightness of a typical one, photons a pixel.

    Returns
    -------
    (H, W) expected photons a pixel.
    """
    light = np.zeros(shape)
    y, x = np.mgrid[: shape[0], : shape[1]]
    for _ in range(number):
        centre = rng.uniform((0, 0), shape)
        brightness = photons_px * rng.lognormal(0, 0.5)
        kind = rng.integers(3)
        if kind == 0:
            sigma = rng.uniform(4, 20)
            light += brightness * np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / (2 * sigma**2))
        elif kind == 1:
            light += brightness * _patch(y, x, centre, rng)
        else:
            steps = rng.normal(0, 0.12, int(rng.integers(20, 120))).cumsum() + rng.uniform(0, 2 * np.pi)
            path = centre + np.stack([np.sin(steps), np.cos(steps)], axis=1).cumsum(axis=0)
            sigma = rng.uniform(1.2, 3.0)
            light += spots(
                positions_px=path,
                photons=np.full(len(path), brightness * sigma * np.sqrt(2 * np.pi)),
                sigma_px=sigma,
                shape=shape,
            )
    return light


def _patch(
    y: NDArray[np.int64], x: NDArray[np.int64], centre: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Grainy ellipse with a soft rim, as an autofluorescent cell shows."""
    angle, long, short = rng.uniform(0, np.pi), rng.uniform(6, 18), rng.uniform(4, 10)
    dy, dx = y - centre[0], x - centre[1]
    along, across = dy * np.sin(angle) + dx * np.cos(angle), dy * np.cos(angle) - dx * np.sin(angle)
    inside = 1 / (1 + np.exp((np.hypot(along / long, across / short) - 1) * 8))
    grain = gaussian_filter(rng.normal(0, 1, y.shape), rng.uniform(1.5, 4))
    return np.asarray(inside * np.clip(1 + 0.4 * grain / grain.std(), 0, None))
