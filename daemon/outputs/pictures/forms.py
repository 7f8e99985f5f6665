"""Content of the forms: coordinates as CSV, marked images and the network's maps as TIFF."""

import io
from typing import Literal

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

    For None, five pages: background, A, C, G, T, which sum to 1. A base's map has the pixels of its channel's frame.
    """
    assert image.maps is not None
    assert image.maps.probabilities is not None
    maps = image.maps.probabilities
    return encode_tiff(maps if channel is None else maps[BACKGROUND + 1 + channel])


def superresolved(image: CalledImage, channel: int | None) -> bytes:
    """TIFF of one channel's light at twice the resolution, (2H, 2W) float32, camera counts above background.

    Counts, unlike the network's normalised units, keep the brightness ratios between the channels.
    For None, the sum of the aligned channels.
    """
    assert image.maps is not None
    assert image.maps.superresolved is not None
    fine, gain = image.maps.superresolved, image.template.normalisation.gain
    if channel is None:
        return encode_tiff(np.sum(image.aligned(fine / gain[:, None, None]), axis=0))
    return encode_tiff(fine[channel] / gain[channel])


COLOURS = np.array([(64, 220, 64), (80, 150, 255), (255, 190, 0), (255, 64, 64)], np.uint8)
"""Red, green and blue of A, C, G and T: the colours of alignment viewers, light enough for a dark background."""

MARK = np.array([(step * y, step * x) for step in (2, 3) for y, x in ((-1, 0), (1, 0), (0, -1), (0, 1))])
"""(8, 2) pixels of a mark, relative to its cluster: a cross with an open centre, so that the spot stays visible."""

DARKEST, BRIGHTEST = 25.0, 99.8
"""Percentiles of a frame that become black and white."""


def marked_image(image: CalledImage, channel: int | None) -> bytes:
    """8-bit RGB TIFF of a frame in grey, on which the calls of its base are marked.

    For None, the aligned channels are added, each in its base's colour, and all calls are marked.
    """
    if channel is None:
        lit = np.stack([stretch_contrast(frame) for frame in image.aligned(image.pixels)])
        ground = np.minimum(np.tensordot(lit, COLOURS, axes=(0, 0)), 255)
    else:
        ground = np.repeat(255 * stretch_contrast(image.pixels[channel])[:, :, None], 3, axis=2)
    picture = np.rint(ground).astype(np.uint8)
    clusters = image.clusters(channel)
    pixels = np.rint(clusters.positions).astype(np.int64)[:, None] + MARK
    on = np.all((pixels >= 0) & (pixels < picture.shape[:2]), axis=2)
    y, x = pixels[on].T
    picture[y, x] = np.broadcast_to(COLOURS[clusters.bases][:, None], (*on.shape, 3))[on]
    return encode_tiff(picture, "rgb")


def stretch_contrast(frame: NDArray[np.uint16 | np.float32]) -> NDArray[np.float32]:
    """Scale a frame to 0-1, from its percentile :data:`DARKEST` to :data:`BRIGHTEST`; a uniform frame becomes 0."""
    dark, bright = np.percentile(frame, (DARKEST, BRIGHTEST))
    return np.asarray(np.clip((frame - dark) / max(bright - dark, 1.0), 0, 1), np.float32)


def encode_tiff(
    image: NDArray[np.float32] | NDArray[np.uint8], photometric: Literal["minisblack", "rgb"] = "minisblack"
) -> bytes:
    """Grey pages (H, W) or (pages, H, W), or one colour page (H, W, 3)."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, image, photometric=photometric)
    return buffer.getvalue()
