"""BGZF: gzip in blocks, each of which can be found and inflated alone (SAM specification, 4.1).

Every reader of gzip reads it.
"""

import struct
from collections.abc import Iterable, Iterator

from isal import igzip_lib

CONTENT = 0xFF00
"""Bytes of content in a block, as in other writers: a block's size fits its field even if nothing can be compressed."""

LEVEL = 1

HEADER = struct.Struct("<4BI2BH2BHH")
"""Header of a gzip member with the extra field ``BC``, which holds the block's size less one."""

END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
"""The empty block at the end of a file; a file without it was cut off."""


def bgzf(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Content as a whole file, in pieces."""
    for piece in pieces:
        yield blocks(memoryview(piece))
    yield END


def blocks(content: memoryview) -> bytes:
    """Content in as many blocks as it needs; the same content gives the same bytes."""
    made = []
    for start in range(0, len(content), CONTENT):
        body = igzip_lib.compress(content[start : start + CONTENT], LEVEL, igzip_lib.COMP_GZIP_NO_HDR)
        size = HEADER.size + len(body)
        made += [HEADER.pack(0x1F, 0x8B, 8, 4, 0, 0, 0xFF, 6, ord("B"), ord("C"), 2, size - 1), body]
    return b"".join(made)
