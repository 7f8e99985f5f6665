"""Fourier ring correlation: up to which spatial frequency two images of the same thing agree."""

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.signal.windows import hann

THRESHOLD = 1 / 7
"""Correlation taken as the limit of resolution (Nieuwenhuizen et al. 2013)."""


def ring_correlation(
    first: NDArray[np.floating], second: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Correlation of two images over rings of spatial frequency.

    Parameters
    ----------
    first, second : (H, W) of the same thing with independent noise.

    Returns
    -------
    frequencies and correlations, each (n,): the middle of each ring, cycles a pixel up to 0.5, and -1 to 1.
    """
    window = np.outer(hann(first.shape[0]), hann(first.shape[1]))
    a, b = (fft.fft2((image - image.mean()) * window) for image in (first, second))
    frequency = np.hypot(fft.fftfreq(first.shape[0])[:, None], fft.fftfreq(first.shape[1])[None, :])
    rings = min(first.shape) // 4
    ring = np.minimum((frequency * 2 * rings).astype(np.int64), rings).ravel()

    def summed(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.bincount(ring, weights=values.ravel(), minlength=rings + 1)[:rings])

    power = np.sqrt(summed(np.abs(a) ** 2) * summed(np.abs(b) ** 2))
    return (np.arange(rings) + 0.5) / (2 * rings), summed(np.real(a * np.conj(b))) / power


def resolution_limit(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """First frequency at which two images' correlation falls below :data:`THRESHOLD`, cycles a pixel, 0.5 if none."""
    frequencies, correlations = ring_correlation(first, second)
    below = np.flatnonzero(correlations < THRESHOLD)
    return float(frequencies[below[0]]) if len(below) else 0.5
