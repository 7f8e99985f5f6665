"""The module combines the bands of all orientations, see :mod:`calib.offline.structured_illumination.pattern`, with a
Wiener filter (Gustafsson 2008).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from calib.offline.structured_illumination.pattern import (
    ORIENTATIONS,
    PHASES,
    Stripes,
    check_consistent,
    fit_stripes,
    separated,
)
from calib.offline.structured_illumination.spectrum import Otf, ReconstructionError

EDGE_PX = 16
"""Width of the mirrored rim around the frames; it fades out, because the Fourier transform joins opposite edges."""

WIENER = 0.002
"""Ratio of noise to signal that the filter assumes."""


@dataclass(frozen=True)
class Reconstruction:
    """A super-resolved image and the stripes it was made with."""

    image: NDArray[np.float32]
    """(2H, 2W) counts above the median of the frames; the four values of a camera pixel share its light.

    Camera pixel y lies under pixels 2 y and 2 y + 1.
    """
    stripes: tuple[Stripes, ...]
    """One for each orientation."""


def reconstruct(frames: NDArray[np.uint16], otf: Otf, *, wiener: float = WIENER) -> Reconstruction:
    """Super-resolve nine frames of structured illumination.

    The transfer function of the result is ``otf`` with all frequencies doubled, so spots are half as wide.

    Parameters
    ----------
    frames : (9, H, W) counts, three phases of the first orientation, then of the second and third.
    wiener : noise over signal; larger is smoother.

    Raises
    ------
    ReconstructionError : there are not nine frames, or their stripes do not fit (see :func:`fit_stripes` and
        :func:`check_consistent`).
    """
    if frames.ndim != 3 or len(frames) != ORIENTATIONS * PHASES:
        raise ReconstructionError(f"frames of shape {frames.shape}: must be 9 × height × width")
    groups = frames.astype(np.float64).reshape(ORIENTATIONS, PHASES, *frames.shape[1:])
    stripes = [fit_stripes(group, otf) for group in groups]
    check_consistent(stripes)
    return Reconstruction(_combined(groups, stripes, otf, wiener), tuple(stripes))


def widefield(frames: NDArray[np.uint16]) -> NDArray[np.float64]:
    """(H, W) image under uniform illumination: the mean of the frames."""
    return np.asarray(frames.mean(axis=0))


def _combined(groups: NDArray[np.float64], stripes: list[Stripes], otf: Otf, wiener: float) -> NDArray[np.float32]:
    """(2H, 2W) Wiener estimate of the object, seen through the transfer function stretched by two."""
    height, width = groups.shape[-2:]
    padded = _padded(groups - np.median(groups))
    rows, columns = padded.shape[-2:]
    # Putting a spectrum into the middle of one of twice the size gives an image with twice as many pixels per side.
    y, x = fft.fftfreq(2 * rows, 0.5)[:, None], fft.fftfreq(2 * columns, 0.5)[None, :]
    at_y, at_x = np.arange(2 * rows)[:, None] / 2 - EDGE_PX, np.arange(2 * columns)[None, :] / 2 - EDGE_PX
    numerator, denominator = np.zeros((2 * rows, 2 * columns), complex), np.zeros((2 * rows, 2 * columns))
    for group, one in zip(padded, stripes, strict=True):
        bands = separated(np.asarray(fft.fft2(group)), one.phases)
        for band, sign in zip(bands, (0, 1, -1), strict=True):
            shift = sign * one.carrier
            ramp = np.exp(-2j * np.pi * (shift[0] * at_y + shift[1] * at_x))
            moved = fft.fft2(fft.ifft2(_doubled(band)) * ramp)
            passed = otf.at(np.hypot(y + shift[0], x + shift[1])) * (one.modulation / 2 if sign else 1)
            numerator += passed * moved
            denominator += passed**2
    object_spectrum = numerator / (denominator + wiener * denominator.max())
    shown = object_spectrum * otf.at(np.hypot(y, x) / 2)
    # The centre of the first fine pixel and the centre of the first camera pixel are half a fine pixel apart.
    shown *= np.exp(-2j * np.pi * 0.25 * (y + x))
    image = np.real(fft.ifft2(shown))
    start = 2 * EDGE_PX
    return np.asarray(image[start : start + 2 * height, start : start + 2 * width], np.float32)


def _padded(frames: NDArray[np.float64]) -> NDArray[np.float64]:
    """Frames with a mirrored rim that fades to zero."""
    fade = 0.5 - 0.5 * np.cos(np.pi * (np.arange(EDGE_PX) + 0.5) / EDGE_PX)
    around = ((0, 0), (0, 0), (EDGE_PX, EDGE_PX), (EDGE_PX, EDGE_PX))
    padded = np.pad(frames, around, mode="symmetric")
    window_y = np.concatenate([fade, np.ones(frames.shape[-2]), fade[::-1]])
    window_x = np.concatenate([fade, np.ones(frames.shape[-1]), fade[::-1]])
    return np.asarray(padded * np.outer(window_y, window_x))


def _doubled(spectrum: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Spectrum of the same image with twice as many samples per side; each sample is a quarter as bright."""
    rows, columns = spectrum.shape
    around = ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2))
    return np.asarray(fft.ifftshift(np.pad(fft.fftshift(spectrum), around)))
