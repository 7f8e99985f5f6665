"""Prior of the fit: in every cycle a cluster shows one base with its usual brightness."""

import numpy as np
from numpy.typing import NDArray

from calib.crosstalk import unmix
from calib.jointfit.arrays import Array, library_of

SPREAD = 0.28
"""Standard deviation of a cluster's light from the light of one base, relative to its brightness."""


def expected_light(light: Array, brightness: Array, crosstalk: NDArray[np.float64]) -> Array:
    """(4, n, ...) expected light of each cluster in each channel: the mean over the four bases, each weighted by how
    well it fits the cluster's light.

    A cluster's light is compared with its brightness times each base's colours; the weights are a Gaussian of
    :data:`SPREAD`. The next fit uses the result as the mean of its ridge: this is a mean-field step of the model in
    which every cluster shows one base.

    Parameters
    ----------
    light : (4, n, ...) fitted light in each channel of n clusters; further axes, such as cycles, may follow.
    brightness : (n,) usual brightness; a cluster with a brightness of 0 is expected to be dark.
    """
    xp = library_of(light).xp
    bright = brightness.reshape(-1, *(1,) * (light.ndim - 2))
    shares = mix_channels(np.linalg.inv(crosstalk), light) / xp.maximum(bright, 1e-6)
    # |shares - e_b|² differs between the bases by -2 shares_b only.
    exponent = shares / SPREAD**2
    weights = xp.exp(exponent - exponent.max(axis=0))
    weights = weights / weights.sum(axis=0)
    return xp.where(bright > 0, mix_channels(crosstalk, weights * bright), 0)


def mix_channels(matrix: NDArray[np.floating], light: Array) -> Array:
    """(4, n, ...) a (4, 4) matrix times the light of each cluster, (4, n, ...), in the light's precision."""
    xp = library_of(light).xp
    factors = xp.asarray(matrix, light.dtype).reshape(4, 4, *(1,) * (light.ndim - 1))
    return (factors * light).sum(axis=1)


def usual_brightness(light: NDArray[np.float64], crosstalk: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) median over the cycles of the light of the brightest base; ``light`` is (n, cycles, 4)."""
    return np.asarray(np.median(unmix(light, crosstalk).max(axis=-1), axis=1))
