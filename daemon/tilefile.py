"""The growing tile file: one byte a cluster and cycle, appended cycle after cycle.

::

    u32 n | cycle 1: n bytes | cycle 2: n bytes | ...        byte = (Q << 2) | base, 0 = no-call

Guaranteed: when :meth:`TileFile.append` returns, the bytes are on the disk (``fdatasync``). A kill
or power loss in the middle leaves a torn tail, which :func:`open_tile_file` cuts off. Not
guaranteed: anything about bytes that the ledger does not name; they are written again.
"""

import os
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from daemon.errors import OutputError

HEADER = struct.Struct("<I")


class TileFile:
    """A tile file open for appending."""

    def __init__(self, path: Path, descriptor: int, clusters: int) -> None:
        self.path = path
        self.clusters = clusters
        self._descriptor = descriptor

    def append(self, calls: NDArray[np.uint8]) -> None:
        """Append the calls of the next cycle, (n,) bytes, and sync them."""
        if calls.shape != (self.clusters,):
            raise ValueError(f"{self.path}: calls of shape {calls.shape}, the tile has {self.clusters} clusters")
        write_fully(self._descriptor, calls.tobytes())
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def open_tile_file(path: Path, *, clusters: int, cycles: int) -> TileFile:
    """Create a tile file, or open it after its first ``cycles`` cycles and cut off what follows.

    Raises
    ------
    OutputError : the file is shorter than the ledger says, or of another tile.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o640)
    try:
        size = os.fstat(descriptor).st_size
        if cycles == 0:
            os.ftruncate(descriptor, 0)
            write_fully(descriptor, HEADER.pack(clusters))
        else:
            expected = HEADER.size + clusters * cycles
            if size < expected or os.pread(descriptor, HEADER.size, 0) != HEADER.pack(clusters):
                raise OutputError(
                    f"tile file {path}: {size} bytes, the ledger has {cycles} cycles of {clusters} clusters; "
                    "the file was changed from outside"
                )
            os.ftruncate(descriptor, expected)
            os.lseek(descriptor, 0, os.SEEK_END)
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
    OutputError : the file does not hold them.
    """
    with path.open("rb") as file:
        header = file.read(HEADER.size)
        if len(header) < HEADER.size:
            raise OutputError(f"tile file {path}: no header")
        (clusters,) = HEADER.unpack(header)
        file.seek(HEADER.size + clusters * (cycles.start - 1))
        content = file.read(clusters * len(cycles))
    if len(content) < clusters * len(cycles):
        raise OutputError(f"tile file {path}: cycles {cycles.start}-{cycles.stop - 1} are not all there")
    return np.frombuffer(content, np.uint8).reshape(len(cycles), clusters)


def write_fully(descriptor: int, content: bytes) -> None:
    """Write all bytes; the system may take them in pieces."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_folder(folder: Path) -> None:
    """Make names created or renamed in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: under another name, synced, renamed, folder synced."""
    temporary = path.with_name(f".{path.name}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
    try:
        write_fully(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
    sync_folder(path.parent)
