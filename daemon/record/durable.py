"""Files that a kill or a power loss leaves whole or not there.

Guaranteed: when :func:`write_durably` or :func:`write_sealed` returns, file and name are on the disk. At any instant
before, the name has what it had before or nothing. Not guaranteed: that no ``.<name>.tmp`` is left behind; the next
writer of the same name writes over it.
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from daemon.errors import OutputError, storage_error

DIGEST = hashlib.sha256().digest_size


def write_fully(descriptor: int, content: bytes | memoryview, *, at: int) -> None:
    """Write all bytes from an offset on; the system may take them in pieces."""
    view = memoryview(content).cast("B")
    while view:
        written = os.pwrite(descriptor, view, at)
        view, at = view[written:], at + written


def sync_folder(folder: Path) -> None:
    """Make names created or renamed in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it; their names are on the disk when this returns."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(mode=0o750, exist_ok=True)
        sync_folder(folder.parent)


def write_durably(path: Path, *content: bytes | memoryview) -> None:
    """Write a file whole or not at all: under another name, synced, renamed, folder synced.

    Raises
    ------
    OSError : it is not there; what was there before still is. May be tried again.
    """
    stream_durably(path, content)


def stream_durably(path: Path, content: Iterable[bytes | memoryview]) -> None:
    """As :func:`write_durably`, of content that need not be in memory at once; what it raises, this raises too."""
    temporary = path.with_name(f".{path.name}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
    try:
        at = 0
        for part in content:
            write_fully(descriptor, part, at=at)
            at += memoryview(part).nbytes
        os.fsync(descriptor)
    except BaseException:
        os.close(descriptor)
        # A half of it would take the room that others wait for.
        temporary.unlink(missing_ok=True)
        raise
    os.close(descriptor)
    temporary.replace(path)
    sync_folder(path.parent)


def write_sealed(path: Path, *content: bytes | memoryview) -> None:
    """Write a file durably, and after its bytes their SHA-256.

    Raises
    ------
    OSError : as :func:`write_durably`.
    """
    digest = hashlib.sha256()
    for part in content:
        digest.update(part)
    write_durably(path, *content, digest.digest())


def read_sealed(path: Path) -> memoryview:
    """The bytes of a file written by :func:`write_sealed`.

    Raises
    ------
    OutputError : it is missing or damaged.
    """
    try:
        stored = memoryview(path.read_bytes())
    except FileNotFoundError as error:
        raise OutputError(f"file {path}: {error.strerror}; it was changed from outside") from error
    except OSError as error:
        raise storage_error(f"file {path}", error) from error
    content = stored[: max(0, len(stored) - DIGEST)]
    if hashlib.sha256(content).digest() != stored[len(content) :]:
        raise OutputError(f"file {path}: its SHA-256 is not the one at its end; it was changed from outside")
    return content
