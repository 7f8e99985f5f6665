"""What a sink gives: files made of committed calls, during a run and again at any later time."""

import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from isal import isal_zlib
from seqd_client.runinfo import TileId

from daemon.errors import storage_error
from daemon.outputs.bgzf import bgzf
from daemon.record.committed import CommittedRun
from daemon.record.durable import make_folder, stream_durably

GZIP_LEVEL = 1
"""Level of ISA-L. It makes FASTQ 3.3 times smaller, at four times the speed of zlib's level 1."""


class Encoding(StrEnum):
    """How content is stored in a file."""

    PLAIN = "plain"
    """As it is."""
    GZIP = "gzip"
    """One gzip member (RFC 1952) without name and time."""
    BGZF = "bgzf"
    """Gzip in blocks, :mod:`daemon.outputs.bgzf`."""


@dataclass(frozen=True)
class SinkFile:
    """A file whose content depends on committed calls alone: the same calls make the same bytes."""

    path: Path
    content: Callable[[], Iterable[bytes]]
    """Gives the content before it is encoded, in pieces.

    Raises :class:`daemon.errors.OutputError` where the run's files cannot be read.
    """
    encoding: Encoding = Encoding.PLAIN
    tile: TileId | None = None
    """The tile whose calls it contains; None where it contains those of several."""
    cycle: int = 0
    """Last cycle that its content needs."""

    def write(self) -> None:
        """Write it whole or not at all.

        Raises
        ------
        OutputError : it could not be written. The caller may try again.
        """
        try:
            make_folder(self.path.parent)
            stream_durably(self.path, encoded(self.content(), self.encoding))
        except OSError as error:
            raise storage_error(f"file {self.path}", error) from error

    def write_if_missing(self) -> None:
        """Write it if it does not exist; an existing file is not touched.

        Raises
        ------
        OutputError : as :meth:`write`.
        """
        try:
            exists = self.path.exists()
        except OSError as error:
            raise storage_error(f"file {self.path}", error) from error
        if not exists:
            self.write()

    def write_if_changed(self) -> None:
        """Write it if its content is out of date; a file that is up to date keeps its time of change.

        Raises
        ------
        OutputError : as :meth:`write`.
        """
        content = b"".join(self.content())
        with suppress(OSError):
            if self.path.read_bytes() == content:
                return
        replace(self, content=lambda: (content,)).write()


@dataclass(frozen=True)
class Sink:
    """Makes files that are final once they are written."""

    name: str
    """For status and log."""
    files_due: Callable[[CommittedRun, Path, TileId, int], Iterable[SinkFile]]
    """Gives the files that become possible when a cycle of a tile is committed.

    It is called with the run, the folder of the run's outputs, the tile and the 1-based cycle.
    """


@dataclass(frozen=True)
class View:
    """An output that is written again as a whole when the run has grown."""

    name: str
    """For the log."""
    files: Callable[[Path], Iterable[SinkFile]]
    """Takes the folder of the run's outputs and gives every file below it, made from what is committed now."""


def encoded(content: Iterable[bytes], encoding: Encoding) -> Iterator[bytes]:
    """The bytes that a file has on the disk, in pieces."""
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
