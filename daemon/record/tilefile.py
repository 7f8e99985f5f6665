"""Tile files: one byte for each cluster and cycle; each cycle is appended after the one before.

::

    u32 n | cycle 1: n bytes | cycle 2: n bytes | ...        byte = (Q << 2) | base, 0 = no-call

Guaranteed: when :meth:`TileFile.put` returns, the bytes are on the disk (``fdatasync``). After a kill or a power loss
the file may end with half a cycle, which :func:`open_tile_file` cuts off. A cycle that could not be written (disk full,
disk error) is written again from its first byte. Nothing is guaranteed about bytes of cycles that are not in the
ledger; they are written again.
"""

import os
import struct
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from daemon.errors import OutputError
from daemon.record.durable import sync_folder, write_fully

HEADER = struct.Struct("<I")


class TileFile:
    """A tile file open for appending."""

    def __init__(self, path: Path, descriptor: int, clusters: int) -> None:
        self.path = path
        self.clusters = clusters
        self._descriptor = descriptor

    def put(self, cycle: int, calls: NDArray[np.uint8]) -> None:
        """Write the calls of a 1-based cycle, (n,) bytes, at the place of the cycle, and sync them.

        Raises
        ------
        OSError : the calls are not on the disk; the call may be repeated.
        ValueError : the number of calls is not that of the tile's clusters.
        """
        if calls.shape != (self.clusters,):
            raise ValueError(f"{self.path}: calls of shape {calls.shape}, the tile has {self.clusters} clusters")
        write_fully(self._descriptor, calls.tobytes(), at=HEADER.size + self.clusters * (cycle - 1))
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def open_tile_file(path: Path, *, clusters: int, cycles: int) -> TileFile:
    """Create a tile file, or open one, keep its first ``cycles`` cycles and cut off what follows.

    Raises
    ------
    OutputError : the file is shorter than these cycles, or has another number of clusters.
    OSError : the file cannot be opened or cut; the call may be repeated.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o640)
    try:
        size = os.fstat(descriptor).st_size
        if cycles == 0:
            os.ftruncate(descriptor, 0)
            write_fully(descriptor, HEADER.pack(clusters), at=0)
        else:
            expected = HEADER.size + clusters * cycles
            if size < expected or os.pread(descriptor, HEADER.size, 0) != HEADER.pack(clusters):
                raise OutputError(
                    f"tile file {path}: {size} bytes, the ledger has {cycles} cycles of {clusters} clusters; "
                    "the file was changed from outside"
                )
            os.ftruncate(descriptor, expected)
        os.fsync(descriptor)
        sync_folder(path.parent)
    except BaseException:
        os.close(descriptor)
        raise
    return TileFile(path, descriptor, clusters)


def read_cycles(path: Path, cycles: range) -> NDArray[np.uint8]:
    """(cycles, n) bytes of consecutive 1-based cycles.

    Raises
    ------
    OutputError : the file does not hold the cycles.
    """
    with path.open("rb") as file:
        clusters = _clusters(path, file)
        file.seek(HEADER.size + clusters * (cycles.start - 1))
        content = file.read(clusters * len(cycles))
    if len(content) < clusters * len(cycles):
        raise OutputError(f"tile file {path}: cycles {cycles.start}-{cycles.stop - 1} are not all there")
    return np.frombuffer(content, np.uint8).reshape(len(cycles), clusters)


def read_chunks(path: Path, cycles: range, *, calls: int) -> Iterator[tuple[slice, NDArray[np.uint8]]]:
    """Consecutive clusters and their (cycles, clusters) bytes, about ``calls`` bytes in each chunk.

    Raises
    ------
    OutputError : the file does not hold the cycles.
    """
    with path.open("rb", buffering=0) as file:
        clusters = _clusters(path, file)
        step = max(1, calls // len(cycles))
        for start in range(0, clusters, step):
            part = slice(start, min(start + step, clusters))
            content = np.empty((len(cycles), part.stop - part.start), np.uint8)
            for row, cycle in zip(content, cycles, strict=True):
                file.seek(HEADER.size + clusters * (cycle - 1) + start)
                if file.readinto(row.data) != len(row):
                    raise OutputError(f"tile file {path}: cycles {cycles.start}-{cycles.stop - 1} are not all there")
            yield part, content


def _clusters(path: Path, file: BinaryIO | FileIO) -> int:
    header = file.read(HEADER.size)
    if len(header) < HEADER.size:
        raise OutputError(f"tile file {path}: no header")
    return int(HEADER.unpack(header)[0])


LOCS_HEADER = struct.Struct("<IfI")
"""Header of a ``.locs`` file of cluster positions, as the Illumina run folder has it: 1, 1.0, number of clusters."""


def encode_locs(positions: NDArray[np.float32]) -> bytes:
    """(n, 2) y and x, pixels, as the bytes of a ``.locs`` file."""
    return LOCS_HEADER.pack(1, 1.0, len(positions)) + positions[:, ::-1].astype("<f4").tobytes()


def read_locs(path: Path) -> NDArray[np.float32]:
    """(n, 2) y and x of the clusters in a ``.locs`` file, pixels.

    Raises
    ------
    OutputError : the file does not have this layout.
    OSError : the file cannot be read.
    """
    content = path.read_bytes()
    if len(content) < LOCS_HEADER.size or LOCS_HEADER.unpack_from(content)[:2] != (1, 1.0):
        raise OutputError(f"locs file {path}: not of the .locs layout")
    number = LOCS_HEADER.unpack_from(content)[2]
    expected = LOCS_HEADER.size + 8 * number
    if len(content) != expected:
        raise OutputError(f"locs file {path}: {len(content)} bytes, {number} clusters need {expected}")
    return np.frombuffer(content, "<f4", offset=LOCS_HEADER.size).reshape(-1, 2)[:, ::-1].astype(np.float32)
