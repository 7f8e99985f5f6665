"""What a sink makes, so that it can be written, and held against its sources later."""

import gzip
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from calib.runfolder import RunInfo, TileId
from daemon.record.runfiles import RunFiles


@dataclass(frozen=True)
class SinkFile:
    """A file made of one tile's committed cycles alone; the same calls make the same bytes."""

    path: Path
    tile: TileId
    cycle: int
    """Last cycle that it is made of; the file is due when this one is committed."""
    content: Callable[[], Iterator[bytes]]
    """Gives what the file holds before :func:`gzipped`, in pieces.

    Raises :class:`daemon.errors.OutputError` where the tile's files cannot be read.
    """


Sink = Callable[[RunFiles, RunInfo, int], Iterator[SinkFile]]
"""Gives every file that a finished run has of it; the number is ``chastity_failures`` of the configuration.

Nothing else lies in the folders of these files.
"""


def gzipped(content: Iterable[bytes]) -> bytes:
    """One gzip member (RFC 1952) without name and time."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=4, mtime=0, filename="") as file:
        for piece in content:
            file.write(piece)
    return buffer.getvalue()
