"""A crowded tile whose light is known, to try a fit on."""

import numpy as np
from numpy.typing import NDArray

from calib.jointfit.scene import Scene
from calib.jointfit.spots import Spots

PIXEL_UM = 0.375
NOISE = 0.05
"""Standard deviation of a pixel, as a share of a typical cluster's peak."""

CROSSTALK = np.array([[1.0, 0.35, 0.01, 0.02], [0.3, 1.0, 0.02, 0.02], [0.01, 0.02, 1.0, 0.25], [0.01, 0.01, 0.1, 1.0]])
STILL = np.zeros(2, np.float32)
"""Drift of its cycle, pixels."""


def crowded_tile(size: int, density_k_mm2: float) -> tuple[NDArray[np.float32], Scene]:
    """(4, H, W) images of one cycle of clusters at known places, and what is known of them.

    Drawn by the fit's own spots, which takes seconds where the simulator takes many minutes; what
    the fit costs hangs on how many clusters share how much light, and on nothing else.
    """
    rng = np.random.default_rng(1)
    number = round(density_k_mm2 * 1e3 * (size * PIXEL_UM * 1e-3) ** 2)
    positions = rng.uniform(-0.5, size - 0.5, (number, 2))
    scene = Scene(
        positions=positions[np.lexsort((positions[:, 1], positions[:, 0]))],
        brightness=rng.lognormal(0, 0.35, number),
        channel_shift_px=rng.uniform(-0.3, 0.3, (4, 2)),
        sigma_px=np.array([1.09, 1.14, 1.19, 1.24]),
        noise=np.full(4, NOISE),
        crosstalk=CROSSTALK,
    )
    light = CROSSTALK @ (np.eye(4)[:, rng.integers(0, 4, number)] * scene.brightness)
    spots = Spots(scene.positions + scene.channel_shift_px[:, None], scene.sigma_px, (size, size))
    return spots.draw(light) + rng.normal(0.2, NOISE, (4, size, size)).astype(np.float32), scene
