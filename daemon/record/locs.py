"""Cluster positions in Illumina's ``.locs`` layout: u32 1, f32 1.0, u32 n, n × (f32 x, f32 y)."""

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from daemon.errors import OutputError

HEADER = struct.Struct("<IfI")


def encode_locs(positions: NDArray[np.float32]) -> bytes:
    """(n, 2) y and x, pixels, as the bytes of a ``.locs`` file."""
    return HEADER.pack(1, 1.0, len(positions)) + positions[:, ::-1].astype("<f4").tobytes()


def read_locs(path: Path) -> NDArray[np.float32]:
    """(n, 2) y and x, pixels.

    Raises
    ------
    OutputError : the file is not of this layout.
    """
    content = path.read_bytes()
    if len(content) < HEADER.size or HEADER.unpack_from(content)[:2] != (1, 1.0):
        raise OutputError(f"locs file {path}: not of the .locs layout")
    number = HEADER.unpack_from(content)[2]
    if len(content) != HEADER.size + 8 * number:
        raise OutputError(f"locs file {path}: {len(content)} bytes, {number} clusters take {HEADER.size + 8 * number}")
    return np.frombuffer(content, "<f4", offset=HEADER.size).reshape(-1, 2)[:, ::-1].astype(np.float32)
