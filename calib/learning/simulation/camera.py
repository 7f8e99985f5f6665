"""The camera: photons to counts."""

import numpy as np
from numpy.typing import NDArray


def expose(
    *,
    photons: NDArray[np.float64],
    read_noise_e: float,
    counts_per_e: float,
    offset: float,
    rng: np.random.Generator,
) -> NDArray[np.uint16]:
    """Counts of an sCMOS-like camera: shot noise, read noise, gain, offset, 16-bit saturation.

    Parameters
    ----------
    photons : detected photons expected in each pixel (quantum efficiency already in).
    read_noise_e : standard deviation, electrons.
    counts_per_e : conversion gain.
    offset : counts without light.
    """
    electrons = rng.poisson(photons) + rng.normal(0, read_noise_e, photons.shape)
    return np.clip(np.rint(electrons * counts_per_e + offset), 0, 65535).astype(np.uint16)
