"""The picture form: the fluorescence image with every call marked on it."""

import numpy as np
from numpy.typing import NDArray

from daemon.forms.image import CalledImage
from daemon.forms.tiff import encode_rgb_tiff

COLOURS = np.array([(64, 220, 64), (80, 150, 255), (255, 190, 0), (255, 64, 64)], np.uint8)
"""Red, green and blue of A, C, G and T: as alignment viewers have them, light enough for a dark ground."""

MARK = np.array([(step * y, step * x) for step in (2, 3) for y, x in ((-1, 0), (1, 0), (0, -1), (0, 1))])
"""(8, 2) pixels of a mark around its cluster: a cross whose open centre leaves the spot in sight."""

DARKEST, BRIGHTEST = 25.0, 99.8
"""Percentiles of a frame that are black and white."""


def marked(image: CalledImage, channel: int | None) -> bytes:
    """8-bit RGB TIFF of a frame in grey with the calls of its base marked.

    For None, the channels are laid over each other, each in its base's colour, with all calls marked.
    """
    if channel is None:
        lit = np.stack([stretched(frame) for frame in image.laid_over(image.pixels)])
        ground = np.minimum(np.tensordot(lit, COLOURS, axes=(0, 0)), 255)
    else:
        ground = np.repeat(255 * stretched(image.pixels[channel])[:, :, None], 3, axis=2)
    picture = np.rint(ground).astype(np.uint8)
    clusters = image.clusters(channel)
    pixels = np.rint(clusters.positions).astype(np.int64)[:, None] + MARK
    on = np.all((pixels >= 0) & (pixels < picture.shape[:2]), axis=2)
    y, x = pixels[on].T
    picture[y, x] = np.broadcast_to(COLOURS[clusters.bases][:, None], (*on.shape, 3))[on]
    return encode_rgb_tiff(picture)


def stretched(frame: NDArray[np.uint16 | np.float32]) -> NDArray[np.float32]:
    """Frame between 0 and 1, black and white at its own :data:`DARKEST` and :data:`BRIGHTEST`; blank is black."""
    dark, bright = np.percentile(frame, (DARKEST, BRIGHTEST))
    return np.asarray(np.clip((frame - dark) / max(bright - dark, 1.0), 0, 1), np.float32)
