"""Comparing a sink's files with the content that the committed calls give."""

import zlib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from daemon.errors import OutputError
from daemon.outputs import bgzf
from daemon.outputs.sink import Encoding, SinkFile, encoded
from daemon.verification.findings import Findings

PIECE = 2**20
"""Bytes handled at a time."""

HEADER = b"".join(encoded((), Encoding.GZIP))[:10]
"""Header of every gzip file that seqd writes (RFC 1952, 2.3)."""

EXCERPT = 16
"""Maximum number of bytes that are shown of a difference."""


def check_sink_file(sink_file: SinkFile, findings: Findings, *, compared: bool) -> None:
    """Check that a file is undamaged, and has the content that the sink gives.

    Parameters
    ----------
    compared : whether to compare the content; without it, only the encoding is checked, for a file whose calls are not
        as committed.
    """
    with findings.reading(sink_file.path, sink_file.tile):
        found = READERS[sink_file.encoding](sink_file.path)
        if compared:
            _check_same(sink_file, found, findings)
        # Read to the end, because the checksum of a gzip member is there.
        for _ in found:
            pass
        findings.checked(sink_file.path.stat().st_size)
        if not compared:
            findings.not_compared.append(findings.name(sink_file.path))


def _check_same(sink_file: SinkFile, found: Iterator[bytes], findings: Findings) -> None:
    """Compare piece by piece, and stop at the first difference."""
    at, held = 0, bytearray()
    # The empty piece at the end finds out whether the file is longer than expected.
    for expected in chain(sink_file.content(), (b"",)):
        while len(held) < max(1, len(expected)) and (piece := next(found, None)) is not None:
            held += piece
        if held[: len(expected)] != expected or (held and not expected):
            same = _common_length(expected, held)
            findings.differs(sink_file.path, _shown(expected, at, same), _shown(held, at, same), tile=sink_file.tile)
            return
        at += len(expected)
        del held[: len(expected)]


def _common_length(first: bytes, second: bytearray) -> int:
    """Length of the longest common beginning."""
    shorter = min(len(first), len(second))
    differ = np.flatnonzero(np.frombuffer(first, np.uint8, shorter) != np.frombuffer(second, np.uint8, shorter))
    return int(differ[0]) if len(differ) else shorter


def _shown(content: bytes | bytearray, at: int, same: int) -> str:
    """An excerpt of the content after its common beginning, and its offset."""
    excerpt = bytes(content[same : same + EXCERPT])
    return f"{excerpt.decode('latin-1')!r} at byte {at + same}" if excerpt else f"its end at byte {at + same}"


def _plain(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from iter(partial(file.read, PIECE), b"")


def _gzip(path: Path) -> Iterator[bytes]:
    """Content of a file of one gzip member, in pieces of at most :data:`PIECE`.

    Raises
    ------
    OutputError : the file is not exactly one undamaged member with :data:`HEADER`.
    """
    inflate = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    with path.open("rb") as file:
        if file.read(len(HEADER)) != HEADER:
            raise OutputError(f"file {path}: its gzip header is not the one that seqd writes")
        file.seek(0)
        try:
            while not inflate.eof and (packed := inflate.unconsumed_tail + file.read(PIECE)):
                while packed and not inflate.eof:
                    yield inflate.decompress(packed, PIECE)
                    packed = inflate.unconsumed_tail
            yield inflate.flush()
        except zlib.error as error:
            raise OutputError(f"file {path}: gzip is damaged: {error}") from error
        if not inflate.eof:
            raise OutputError(f"file {path}: gzip ends in the middle")
        if inflate.unused_data or file.read(1):
            raise OutputError(f"file {path}: something follows after the gzip member")


def _bgzf(path: Path) -> Iterator[bytes]:
    """Content of a file of BGZF blocks, block by block.

    Raises
    ------
    OutputError : a block is damaged, or does not have BGZF's header; or the last block is not the empty one.
    """
    with path.open("rb") as file:
        while True:
            begin = file.read(bgzf.HEADER.size)
            if begin[:-2] != bgzf.END[: bgzf.HEADER.size - 2]:
                what = "ends in the middle" if not begin or len(begin) < bgzf.HEADER.size else "is damaged: a header"
                raise OutputError(f"file {path}: gzip {what}")
            body = file.read(int.from_bytes(begin[-2:], "little") + 1 - len(begin))
            if begin + body == bgzf.END:
                break
            inflate = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
            try:
                content = inflate.decompress(begin + body)
            except zlib.error as error:
                raise OutputError(f"file {path}: gzip is damaged: {error}") from error
            if not inflate.eof:
                raise OutputError(f"file {path}: gzip ends in the middle")
            if inflate.unused_data or not content:
                raise OutputError(f"file {path}: gzip is damaged: a block has another size than its header says")
            yield content
        if file.read(1):
            raise OutputError(f"file {path}: something follows after the last gzip block")


READERS: dict[Encoding, Callable[[Path], Iterator[bytes]]] = {
    Encoding.PLAIN: _plain,
    Encoding.GZIP: _gzip,
    Encoding.BGZF: _bgzf,
}
"""Functions that read the content of a file with an encoding."""
