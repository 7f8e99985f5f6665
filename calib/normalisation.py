"""Brightness of a tile's channels: the background and the light of a typical lit cluster."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter, minimum_filter

NEIGHBOURHOOD_PX = 15
"""Edge of the window whose darkest part is taken for local background."""

NOISE_FACTOR = 6.0
"""A peak counts if its height above the local background is this many standard deviations of the noise."""

START_PERCENTILE = 98
"""The scale of a channel is the peak of its typical cluster. Its estimate starts with this percentile of the channel's
peaks, and each round reduces it."""

MIN_PEAK = 0.5
"""Peaks dimmer than this share of their channel's scale do not count, because in the channel of a dim dye there are
more peaks of noise and cell texture than of clusters."""

SMOOTHING_PX = 0.7
SMOOTHED_PEAK = 0.8
"""Height of a spot after smoothing, relative to its height before. The ratio is 0.71 at a sigma of 1.1 px and 0.86 at
1.7 px; this value lies between them."""

ROUNDS = 30


@dataclass(frozen=True)
class Normalisation:
    """Maps counts to normalised units: 0 is background, 1 the peak of a typical lit cluster."""

    offset: NDArray[np.float32]
    """(4,) background of each channel, counts."""
    gain: NDArray[np.float32]
    """(4,) normalised units per count."""

    def apply(self, pixels: NDArray[np.uint16]) -> NDArray[np.float32]:
        """(4, H, W) normalised units."""
        return (pixels - self.offset[:, None, None]) * self.gain[:, None, None]


def estimate_normalisation(images: NDArray[np.uint16]) -> Normalisation:
    """Estimate one offset and one gain for each channel, from the template cycles of a tile.

    A channel has one gain for all cycles: base composition can be so extreme in a cycle that a gain of
    that cycle alone would raise the noise of a dark channel to the light of clusters.

    Peaks of all channels are listed with their amplitude in every channel. Each peak is assigned to the
    channel in which it is brightest relative to the channel's scale, and the scale becomes the median
    amplitude of the channel's peaks. When this has converged, a channel's own clusters are separated from
    light that leaks into it, however unequal the dyes are.

    Parameters
    ----------
    images : (cycles, 4, H, W).
    """
    offset = np.median(images, axis=(0, 2, 3)).astype(np.float32)
    amplitudes, noise = _peaks(images)
    scale = np.maximum(np.percentile(amplitudes, START_PERCENTILE, axis=0), NOISE_FACTOR * noise)
    for _ in range(ROUNDS):
        relative = amplitudes / scale
        owner, counts = np.argmax(relative, axis=1), relative.max(axis=1) > MIN_PEAK
        before = scale.copy()
        for channel in range(4):
            own = amplitudes[counts & (owner == channel), channel]
            if len(own) >= 5:
                scale[channel] = max(np.median(own), NOISE_FACTOR * noise[channel])
        if np.allclose(scale, before, rtol=1e-3):
            break
    return Normalisation(offset, (SMOOTHED_PEAK / scale).astype(np.float32))


def _peaks(images: NDArray[np.uint16]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n, 4) counts above local background of every peak in every channel, and (4,) noise."""
    amplitudes, noises = [], []
    for frames in images:
        smooth = gaussian_filter(frames.astype(np.float32), (0, SMOOTHING_PX, SMOOTHING_PX))
        window = (1, NEIGHBOURHOOD_PX, NEIGHBOURHOOD_PX)
        floor = gaussian_filter(minimum_filter(smooth, window), (0, NEIGHBOURHOOD_PX / 4, NEIGHBOURHOOD_PX / 4))
        above = smooth - floor
        noise = 1.4826 * np.median(np.abs(above - np.median(above, axis=(1, 2), keepdims=True)), axis=(1, 2))
        noise = np.maximum(noise, 1e-3)
        # Channels are shifted relative to each other: a peak may be one pixel away in another channel.
        reach = maximum_filter(above, (1, 3, 3))
        signal = (above / noise[:, None, None]).max(axis=0)
        peak = (signal == maximum_filter(signal, 5)) & (signal > NOISE_FACTOR)
        amplitudes.append(reach[:, peak].T)
        noises.append(noise)
    listed = np.concatenate(amplitudes).astype(np.float64)
    noise = np.median(noises, axis=0).astype(np.float64)
    if len(listed) == 0:
        listed = noise[None, :] * NOISE_FACTOR
    return listed, noise
