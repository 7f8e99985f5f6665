"""The resolution of images by ring correlation, the transfer function, and the error of the reconstruction."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.signal.windows import hann
from seqd_client.errors import SeqdError


class ReconstructionError(SeqdError):
    """Frames cannot be reconstructed: no stripes are found, or they do not fit the frames."""

    exit_code = 6


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
    """First frequency at which the correlation of two images is below :data:`THRESHOLD`, in cycles a pixel.

    If there is no such frequency, the result is 0.5.
    """
    frequencies, correlations = ring_correlation(first, second)
    below = np.flatnonzero(correlations < THRESHOLD)
    return float(frequencies[below[0]]) if len(below) else 0.5


ABBE = 0.42
"""Cutoff, 2 NA / wavelength, multiplied by the standard deviation of the spots, 0.21 wavelength / NA."""


@dataclass(frozen=True)
class Otf:
    """A round transfer function, linear between the frequencies given, zero beyond the last."""

    frequencies: NDArray[np.float64]
    """(n,) rising from 0, cycles a camera pixel."""
    values: NDArray[np.float64]
    """(n,) falling from 1."""

    def __post_init__(self) -> None:
        rising = len(self.frequencies) > 1 and self.frequencies[0] == 0 and (np.diff(self.frequencies) > 0).all()
        if not rising or abs(self.values[0] - 1) > 1e-3 or not ((self.values >= 0) & (self.values <= 1)).all():
            raise ReconstructionError(
                "OTF: frequencies must rise from 0 and values be 1 at 0 and in 0 to 1, "
                f"not {self.frequencies[:3]} and {self.values[:3]}"
            )

    @classmethod
    def gaussian(cls, sigma_px: float) -> "Otf":
        """Transfer function of Gaussian spots on square pixels, up to the Abbe limit of an objective with such spots.

        Parameters
        ----------
        sigma_px : standard deviation of the spots without the pixels, whose box adds 1/12 to the variance.
        """
        frequencies = np.linspace(0, ABBE / sigma_px, 200)
        return cls(frequencies, np.exp(-2 * np.pi**2 * (sigma_px**2 + 1 / 12) * frequencies**2))

    @property
    def cutoff(self) -> float:
        """Largest frequency that passes, cycles a camera pixel."""
        return float(self.frequencies[-1])

    def at(self, frequency: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values at radial frequencies, cycles a camera pixel."""
        return np.asarray(np.interp(frequency, self.frequencies, self.values, right=0.0))


def read_otf(path: Path) -> Otf:
    """Read a measured transfer function: CSV rows of frequency (cycles a camera pixel) and value, no header.

    Raises
    ------
    ReconstructionError : it cannot be read, or is no transfer function.
    """
    try:
        table = np.loadtxt(path, delimiter=",", ndmin=2)
    except (OSError, ValueError) as error:
        raise ReconstructionError(f"OTF {path}: {error}") from error
    if table.shape[1] != 2:
        raise ReconstructionError(f"OTF {path}: {table.shape[1]} columns, must be frequency and value")
    return Otf(table[:, 0], table[:, 1])
