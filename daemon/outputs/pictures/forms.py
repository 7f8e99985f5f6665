"""The coordinate form: called clusters as CSV."""

import io

import numpy as np
import tifffile
from numpy.typing import NDArray
from seqd_client.runinfo import CHANNELS

from daemon.outputs.pictures.calledimage import CalledImage
from engines.network.architecture import BACKGROUND

HEADER = "y,x,base,quality\n"


def coordinates(image: CalledImage, channel: int | None) -> bytes:
    """CSV of :meth:`CalledImage.clusters`, in the order of the tile's ``.locs``; positions in pixels of the frame."""
    clusters = image.clusters(channel)
    rows = zip(clusters.positions.tolist(), clusters.bases.tolist(), clusters.qualities.tolist(), strict=True)
    return (HEADER + "".join(f"{y:.3f},{x:.3f},{CHANNELS[base]},{phred}\n" for (y, x), base, phred in rows)).encode()


def probabilities(image: CalledImage, channel: int | None) -> bytes:
    """TIFF of the probability that each pixel is the centre of a cluster of one base, (H, W) float32.

    For None, five pages: background, A, C, G, T, which sum to 1. A base's map lies as the frame of its channel does.
    """
    assert image.maps is not None
    assert image.maps.probabilities is not None
    maps = image.maps.probabilities
    return encode_tiff(maps if channel is None else maps[BACKGROUND + 1 + channel])


def superresolved(image: CalledImage, channel: int | None) -> bytes:
    """TIFF of one channel's light at twice the resolution, (2H, 2W) float32, camera counts above background.

    Counts, unlike the network's normalised units, keep the brightness ratios between the channels.
    For None, the channels are laid over each other and summed.
    """
    assert image.maps is not None
    assert image.maps.superresolved is not None
    fine, gain = image.maps.superresolved, image.template.normalisation.gain
    if channel is None:
        return encode_tiff(np.sum(image.laid_over(fine / gain[:, None, None]), axis=0))
    return encode_tiff(fine[channel] / gain[channel])


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


def encode_tiff(image: NDArray[np.float32]) -> bytes:
    """Grey pages of (H, W) or (pages, H, W) float32."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, image, photometric="minisblack")
    return buffer.getvalue()


def encode_rgb_tiff(image: NDArray[np.uint8]) -> bytes:
    """One colour page of (H, W, 3) uint8."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, image, photometric="rgb")
    return buffer.getvalue()
