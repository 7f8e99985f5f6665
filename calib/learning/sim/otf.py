"""The optical transfer function: how much of each spatial frequency the optics and the pixels pass."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calib.learning.sim.errors import ReconstructionError

ABBE = 0.42
"""Cutoff 2 NA / wavelength of an objective whose spots have the standard deviation 1 (sigma = 0.21 wavelength / NA)."""


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
        """Of Gaussian spots seen by square pixels, up to the Abbe limit of an objective that makes such spots.

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
