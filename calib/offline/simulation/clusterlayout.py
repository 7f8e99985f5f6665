"""Where clusters lie: scattered at random, or on the grid of a patterned flow cell."""

import numpy as np
from numpy.typing import NDArray


def scattered(
    *, shape: tuple[int, int], margin_px: float, density_px2: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Clusters at random (Poisson).

    Parameters
    ----------
    shape : height and width of the tile.
    margin_px : width of the rim around the tile that has clusters too.
    density_px2 : clusters per pixel.

    Returns
    -------
    (n, 2) y and x; pixel centres lie on whole numbers.
    """
    extent = np.array(shape) + 2 * margin_px
    number = rng.poisson(density_px2 * (extent[0] * extent[1]))
    return np.asarray(rng.uniform(0, 1, (number, 2)) * extent - margin_px - 0.5)


def patterned(
    *,
    shape: tuple[int, int],
    margin_px: float,
    pitch_px: float,
    jitter_px: float,
    occupancy: float,
    angle_deg: float,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Clusters on a square grid with a random origin.

    Parameters
    ----------
    shape : height and width of the tile.
    margin_px : width of the rim around the tile that has clusters too.
    pitch_px : distance of neighbouring spots.
    jitter_px : standard deviation of a cluster's place on its spot, in y and in x.
    occupancy : share of the spots that hold a cluster.
    angle_deg : rotation of the grid against the camera.

    Returns
    -------
    (n, 2) y and x; pixel centres lie on whole numbers.
    """
    extent = np.array(shape) + 2 * margin_px
    reach = int(np.ceil(np.hypot(*extent) / 2 / pitch_px)) + 1
    nodes = np.argwhere(np.ones((2 * reach + 1, 2 * reach + 1))) - reach
    along = pitch_px * (nodes + rng.uniform(-0.5, 0.5, 2))
    angle = np.deg2rad(angle_deg)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    places = along @ turn + (np.array(shape) - 1) / 2
    held = np.all(np.abs(places - (np.array(shape) - 1) / 2) <= extent / 2, axis=1) & (
        rng.random(len(places)) < occupancy
    )
    return np.asarray(places[held] + rng.normal(0, jitter_px, (int(held.sum()), 2)))
