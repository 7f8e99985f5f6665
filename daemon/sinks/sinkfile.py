"""What a sink makes, so that it can be written, and held against its sources later."""

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from isal import isal_zlib

from calib.runfolder import TileId
from daemon.record.durable import make_folder, stream_durably
from daemon.sinks.bgzf import bgzf

GZIP_LEVEL = 1
"""ISA-L's; on FASTQ 3.3 times smaller, at four times the speed of zlib's level 1."""


class Encoding(StrEnum):
    """How content lies in a file."""

    PLAIN = "plain"
    """As it is."""
    GZIP = "gzip"
    """One gzip member (RFC 1952) without name and time."""
    BGZF = "bgzf"
    """Gzip in blocks, :mod:`daemon.sinks.bgzf`."""


@dataclass(frozen=True)
class SinkFile:
    """A file made of what is committed alone; the same calls make the same content."""

    path: Path
    content: Callable[[], Iterable[bytes]]
    """Gives what the file holds before it is encoded, in pieces.

    Raises :class:`daemon.errors.OutputError` where the run's files cannot be read.
    """
    encoding: Encoding = Encoding.PLAIN
    tile: TileId | None = None
    """That it is made of, where it is of one alone."""
    cycle: int = 0
    """Last cycle that it is made of."""

    def write(self) -> None:
        """Write it whole or not at all.

        Raises
        ------
        OSError, OutputError : it is not there. May be tried again.
        """
        make_folder(self.path.parent)
        stream_durably(self.path, encoded(self.content(), self.encoding))


def encoded(content: Iterable[bytes], encoding: Encoding) -> Iterator[bytes]:
    """Content as it lies in a file, in pieces."""
    match encoding:
        case Encoding.PLAIN:
            yield from content
        case Encoding.GZIP:
            deflate = isal_zlib.compressobj(GZIP_LEVEL, isal_zlib.DEFLATED, 16 + zlib.MAX_WBITS)
            for piece in content:
                yield deflate.compress(piece)
            yield deflate.flush()
        case Encoding.BGZF:
            yield from bgzf(content)
