"""Sinks: what is made of a run while it goes on, and again at any time later."""

import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from isal import isal_zlib
from seqd_client.runinfo import TileId

from daemon.errors import storage_error
from daemon.outputs.bgzf import bgzf
from daemon.record.committed import CommittedRun
from daemon.record.durable import make_folder, stream_durably

GZIP_LEVEL = 1
"""ISA-L's; on FASTQ 3.3 times smaller, at four times the speed of zlib's level 1."""


class Encoding(StrEnum):
    """How content lies in a file."""

    PLAIN = "plain"
    """As it is."""
    GZIP = "gzip"
    """One gzip member (RFC 1952) without name and time."""
    BGZF = "bgzf"
    """Gzip in blocks, :mod:`daemon.outputs.bgzf`."""


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
        OutputError : it is not there. May be tried again.
        """
        try:
            make_folder(self.path.parent)
            stream_durably(self.path, encoded(self.content(), self.encoding))
        except OSError as error:
            raise storage_error(f"file {self.path}", error) from error

    def make(self) -> None:
        """Write it if it is not there; what stands is not touched.

        Raises
        ------
        OutputError : as :meth:`write`.
        """
        try:
            there = self.path.exists()
        except OSError as error:
            raise storage_error(f"file {self.path}", error) from error
        if not there:
            self.write()

    def renew(self) -> None:
        """Write it if it is not what it should be, so that nothing changes any more after the end of a run.

        Raises
        ------
        OutputError : as :meth:`write`.
        """
        content = b"".join(self.content())
        with suppress(OSError):
            if self.path.read_bytes() == content:
                return
        replace(self, content=lambda: (content,)).write()


class Sink(Protocol):
    """Makes files that stand once they are made."""

    name: str
    """For people."""

    def due(self, run: CommittedRun, root: Path, tile: TileId, cycle: int) -> Iterable[SinkFile]:
        """The files that can be made once a cycle of a tile is committed, and could not before.

        Parameters
        ----------
        root : folder of the run's outputs; the run's own, if not configured otherwise.
        """


class View(Protocol):
    """Makes files that are made anew as the run goes on."""

    name: str
    """For people."""

    def files(self, root: Path) -> Iterable[SinkFile]:
        """Every file, of what is committed now."""


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
