"""The camera: photons to counts."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sensor:
    """An sCMOS sensor; every map of a property is (H, W), or of shape () if all pixels are equal."""

    counts_per_e: NDArray[np.float64]
    """Conversion gain."""
    offset: NDArray[np.float64]
    """Counts without light."""
    read_noise_e: NDArray[np.float64]
    """Standard deviation, electrons."""


def sensor(
    *,
    shape: tuple[int, int],
    counts_per_e: float,
    gain_spread: float,
    offset: float,
    offset_spread: float,
    read_noise_e: float,
    read_noise_spread: float,
    rng: np.random.Generator,
) -> Sensor:
    """Draw the pixels of a sensor.

    Parameters
    ----------
    counts_per_e : mean conversion gain.
    gain_spread : standard deviation of a pixel's gain over the mean gain.
    offset, offset_spread : mean and standard deviation of the counts without light.
    read_noise_e : median read noise, electrons.
    read_noise_spread : standard deviation of the natural logarithm of a pixel's read noise.
    """
    gain, level, noise = np.array(counts_per_e), np.array(offset), np.array(read_noise_e)
    if gain_spread:
        gain = gain * np.clip(rng.normal(1, gain_spread, shape), 0, None)
    if offset_spread:
        level = rng.normal(level, offset_spread, shape)
    if read_noise_spread:
        noise = noise * rng.lognormal(0, read_noise_spread, shape)
    return Sensor(gain, level, noise)


def expose(*, photons: NDArray[np.float64], sensor: Sensor, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Counts of a camera: shot noise, read noise, gain, offset, 16-bit saturation.

    Parameters
    ----------
    photons : (H, W) detected photons expected in each pixel (quantum efficiency already in).
    """
    electrons = rng.poisson(photons) + rng.normal(0, sensor.read_noise_e, photons.shape)
    return np.clip(np.rint(electrons * sensor.counts_per_e + sensor.offset), 0, 65535).astype(np.uint16)
