"""Registration: the shift of each cycle and channel relative to the template."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, shift
from seqd_client.errors import SeqdError
from skimage.registration import phase_cross_correlation

SPOT_PX = 1.0
SURROUND_PX = 4.0
"""Widths of the band-pass filter: it keeps spots and removes background."""

BRIGHTEST = 3.0
"""Pixels are clipped at this value, in normalised units, because dust and cells are bright and do not move with the
clusters."""

UPSAMPLE = 20
"""Shifts are found to 1/20 of a pixel."""

SIGNIFICANCE = 7.0
"""A shift is accepted if its correlation is at least this many standard deviations. The standard deviation is that of
the correlation of unrelated images."""

SMALL_TILE_CORRELATION = 0.5
"""Upper bound of the required correlation; without it, no shift of a tile under 65 px would be accepted."""

CORRELATED_PX = 20.0
"""Number of pixels that vary together in a band-passed image; a tile has one independent value in each such area."""


class RegistrationError(SeqdError):
    """A cycle does not match its template."""

    exit_code: ClassVar[int] = 6


@dataclass(frozen=True)
class Alignment:
    """Geometry of the template cycles."""

    drift_px: NDArray[np.float32]
    """(cycles, 2) shift of each cycle, y and x; NaN where a cycle does not match."""
    channel_shift_px: NDArray[np.float32]
    """(4, 2) shift of each channel against the mean of the four."""


def spots_only(normalised: NDArray[np.float32]) -> NDArray[np.float32]:
    """Band-pass of images (..., H, W) in normalised units, clipped to what clusters show."""
    flat = (0,) * (normalised.ndim - 2)
    clipped = np.minimum(normalised, BRIGHTEST)
    narrow = gaussian_filter(clipped, (*flat, SPOT_PX, SPOT_PX))
    return np.asarray(narrow - gaussian_filter(clipped, (*flat, SURROUND_PX, SURROUND_PX)), np.float32)


def align(spots: NDArray[np.float32]) -> Alignment:
    """Drift of every cycle and shift of every channel, from the cycles of a template.

    Parameters
    ----------
    spots : (cycles, 4, H, W) from :func:`spots_only`.

    Returns
    -------
    Shifts relative to the first cycle that at least half of the others match. A cycle that does not match
    has a drift of NaN.
    """
    channel_shift = np.zeros((4, 2), np.float32)
    drift = np.full((len(spots), 2), np.nan, np.float32)
    for _ in range(2):
        drift = _drift([_merged(frames, channel_shift) for frames in spots])
        matched = np.flatnonzero(np.isfinite(drift[:, 0]))
        if len(matched) == 0:
            break
        # Over several cycles most clusters light up in every channel; in one cycle only a quarter of them does.
        lit = [np.mean([_moved(spots[i, c], -drift[i]) for i in matched], axis=0) for c in range(4)]
        reference = np.mean([_moved(lit[c], -channel_shift[c]) for c in range(4)], axis=0)
        channel_shift = _channel_shifts(reference, lit)
    return Alignment(drift, channel_shift)


def register(
    reference: NDArray[np.float32], spots: NDArray[np.float32], channel_shift_px: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Shift (y, x) of one cycle against a reference image.

    The four channels are added first, because for any base composition their sum shows every cluster in every cycle.

    Parameters
    ----------
    reference : (H, W) band-passed template, see :func:`draw_reference`.
    spots : (4, H, W) from :func:`spots_only`.
    channel_shift_px : (4, 2) from :func:`align`.

    Raises
    ------
    RegistrationError : the cycle does not match the reference.
    """
    return measure_shift(reference, _merged(spots, channel_shift_px))


def draw_reference(positions: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """(H, W) band-passed picture of a template, (n, 2) positions."""
    pixels = np.rint(positions).astype(np.int64)
    inside = np.all((pixels >= 0) & (pixels < np.array(shape)), axis=1)
    corner = np.floor(positions[inside]).astype(np.int64)
    fraction = positions[inside] - corner
    canvas = np.zeros((shape[0] + 2, shape[1] + 2), np.float32)
    for dy in (0, 1):
        for dx in (0, 1):
            weight = np.abs(1 - dy - fraction[:, 0]) * np.abs(1 - dx - fraction[:, 1])
            np.add.at(canvas, (corner[:, 0] + dy + 1, corner[:, 1] + dx + 1), weight)
    points = canvas[1:-1, 1:-1]
    return np.asarray(
        gaussian_filter(points, np.hypot(SPOT_PX, 1.1)) - gaussian_filter(points, SURROUND_PX), np.float32
    )


def measure_shift(reference: NDArray[np.float32], moved: NDArray[np.float32]) -> NDArray[np.float32]:
    """(2,) shift of ``moved`` against ``reference``.

    Raises
    ------
    RegistrationError : the two correlate no better than unrelated images.
    """
    if not (reference.any() and moved.any()):
        raise RegistrationError("registration: an image is blank")
    found, error, _ = phase_cross_correlation(reference, moved, upsample_factor=UPSAMPLE, normalization=None)
    correlation = np.sqrt(max(0.0, 1 - float(error) ** 2))
    least = min(SIGNIFICANCE / np.sqrt(reference.size / CORRELATED_PX), SMALL_TILE_CORRELATION)
    if correlation < least:
        raise RegistrationError(f"registration: correlation {correlation:.3f}, at least {least:.3f} is needed")
    return -np.asarray(found, np.float32)


def _drift(merged: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """(cycles, 2) drift relative to the first of the merged images that at least half of the others match."""
    best = np.full((len(merged), 2), np.nan, np.float32)
    for reference in merged:
        drift = np.full((len(merged), 2), np.nan, np.float32)
        for index, moved in enumerate(merged):
            try:
                # An image is compared with itself too, because a blank image does not match itself.
                drift[index] = measure_shift(reference, moved)
            except RegistrationError:
                continue
        if np.isfinite(drift).sum() > np.isfinite(best).sum():
            best = drift
        if np.isfinite(best[:, 0]).sum() > len(merged) / 2:
            break
    return best


def _channel_shifts(reference: NDArray[np.float32], lit: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    shifts = np.zeros((4, 2), np.float32)
    known = np.zeros(4, bool)
    for channel, image in enumerate(lit):
        try:
            shift_px = measure_shift(reference, image)
        except RegistrationError:
            continue
        # A dark channel can match at a random shift; optics do not shift a channel by more than this.
        if np.all(np.abs(shift_px) < SURROUND_PX):
            shifts[channel], known[channel] = shift_px, True
    if known.any():
        shifts -= shifts[known].mean(axis=0)
        shifts[~known] = 0
    return shifts


def _merged(frames: NDArray[np.float32], channel_shift: NDArray[np.float32]) -> NDArray[np.float32]:
    moved = [_moved(frame, -by) for frame, by in zip(frames, channel_shift, strict=True)]
    return np.asarray(np.sum(moved, axis=0), np.float32)


def _moved(image: NDArray[np.float32], by: NDArray[np.float32]) -> NDArray[np.float32]:
    return image if not by.any() else np.asarray(shift(image, by, order=1, mode="constant"), np.float32)
