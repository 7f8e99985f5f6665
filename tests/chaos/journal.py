"""Reading what ``shim.c`` recorded: every change of a folder, in order, each complete."""

import struct
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

HEADER = struct.Struct("<c3xIIIQq")
"""kind, number of the change, bytes of the path, bytes of what follows it, inode, offset."""


class Kind(StrEnum):
    """What a change was."""

    CREATE = "C"
    """A file got a name."""
    WRITE = "W"
    """Bytes at an offset."""
    TRUNCATE = "T"
    """The offset is the new size."""
    SYNC = "S"
    """``fsync`` or ``fdatasync`` of a file returned."""
    SYNC_FAILED = "E"
    """It did not, and what it was to write is not tried again."""
    SYNC_FOLDER = "D"
    """``fsync`` of a folder returned."""
    RENAME = "R"
    UNLINK = "U"
    """Also ``rmdir``."""
    MKDIR = "M"
    LINK = "L"


@dataclass(frozen=True)
class Change:
    """One recorded change."""

    kind: Kind
    number: int
    """Since the process started, from 1."""
    path: str
    """Relative to the folder that is watched."""
    inode: int = 0
    """Of the file that was changed; 0 where names were."""
    offset: int = 0
    other: bytes = b""
    """The bytes written, or the other path."""


def read_journal(path: Path) -> list[Change]:
    """All changes; of one that was being recorded at a kill nothing is there that counts."""
    content = path.read_bytes() if path.exists() else b""
    changes, at = [], 0
    while at + HEADER.size <= len(content):
        kind, number, named, following, inode, offset = HEADER.unpack_from(content, at)
        at += HEADER.size
        name, other = content[at : at + named], content[at + named : at + named + following]
        at += named + following
        if at > len(content):
            break
        changes.append(Change(Kind(kind.decode()), number, name.decode(), inode, offset, other))
    return changes
