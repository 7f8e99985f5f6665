"""What chemistry says before the fit: in a cycle a cluster shows one base, as bright as ever."""

import numpy as np
from numpy.typing import NDArray

from calib.crosstalk import unmix

SPREAD = 0.28
"""Standard deviation of a cluster's light about what one base would show, in shares of its brightness."""


def expected_light(
    light: NDArray[np.float64], brightness: NDArray[np.float64], crosstalk: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(n, ..., 4) mean light in each channel, over the bases that the light so far leaves possible.

    A cluster's light is compared with its brightness times each base's colours; the bases are
    weighed by a Gaussian of :data:`SPREAD`. Used as the mean that the next fit is drawn to, this
    is a mean-field step of the model with one base a cluster.

    Parameters
    ----------
    light : (n, ..., 4) fitted.
    brightness : (n,); clusters without any are expected dark.
    """
    shape = (len(brightness),) + (1,) * (light.ndim - 1)
    bright = brightness.reshape(shape)
    shares = unmix(light, crosstalk) / np.maximum(bright, 1e-6)
    # |shares - e_b|² differs between the bases by -2 shares_b only.
    exponent = shares / SPREAD**2
    weights = np.exp(exponent - exponent.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.asarray(np.where(bright > 0, (weights * bright) @ crosstalk.T, 0.0))


def usual_brightness(light: NDArray[np.float64], crosstalk: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) median over the cycles of the brightest base's light, (n, cycles, 4)."""
    return np.asarray(np.median(unmix(light, crosstalk).max(axis=-1), axis=1))
