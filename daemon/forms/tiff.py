"""TIFF in memory, so that it can be written whole or not at all."""

import io

import numpy as np
import tifffile
from numpy.typing import NDArray


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
