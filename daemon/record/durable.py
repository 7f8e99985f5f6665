"""Writing files durably: after a kill or a power loss a file is whole or absent.

Guaranteed: when :func:`write_durably` or :func:`write_sealed` returns, the file and its name are on the disk. Until
then the name has its former content, or does not exist. Two processes never write to one ``.<name>.tmp``: the second
is refused. Not guaranteed: that no ``.<name>.tmp`` is left behind; the next writer of the same name overwrites it.
"""

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from daemon.errors import OutputError, RunError, storage_error

DIGEST = hashlib.sha256().digest_size


def write_fully(descriptor: int, content: bytes | memoryview, *, at: int) -> None:
    """Write all bytes at an offset, also where the system takes them in several pieces."""
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


def temporary(path: Path) -> Path:
    """The name that a file has until it is whole."""
    return path.with_name(f".{path.name}.tmp")


def open_temporary(path: Path) -> int:
    """Descriptor of a file's ``.tmp``, emptied, and locked against other processes until it is closed.

    Raises
    ------
    OSError : it cannot be opened, or another process writes to it.
    """
    while True:
        descriptor = os.open(temporary(path), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o640)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BlockingIOError(errno.EWOULDBLOCK, "another process writes it") from None
            except OSError:
                pass  # Some file systems know no locks.
            # Between open and lock, another process may have renamed this file: then it has its final name and is
            # whole, so it must not be emptied, and a new one is opened.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), temporary(path).stat()):
                    os.ftruncate(descriptor, 0)
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def write_durably(path: Path, *content: bytes | memoryview) -> None:
    """Write a file whole or not at all: under another name, synced, renamed, folder synced.

    Raises
    ------
    OSError : the file is not written, and the former one still exists; the call may be repeated.
    """
    stream_durably(path, content)


def stream_durably(path: Path, content: Iterable[bytes | memoryview]) -> None:
    """Write a file as :func:`write_durably` does, from parts that need not be in memory at the same time.

    Raises
    ------
    OSError : as by :func:`write_durably`. The former file also remains when the iterable raises an error.
    """
    descriptor = open_temporary(path)
    try:
        at = 0
        for part in content:
            write_fully(descriptor, part, at=at)
            at += memoryview(part).nbytes
        os.fsync(descriptor)
        temporary(path).replace(path)
    except BaseException:
        # Half a file would take disk space that other files wait for.
        temporary(path).unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    sync_folder(path.parent)


def write_sealed(path: Path, *content: bytes | memoryview) -> None:
    """Write a file durably, with the SHA-256 of its content at the end.

    Raises
    ------
    OSError : as by :func:`write_durably`.
    """
    digest = hashlib.sha256()
    for part in content:
        digest.update(part)
    write_durably(path, *content, digest.digest())


def read_sealed(path: Path) -> memoryview:
    """The content of a file written by :func:`write_sealed`, without the SHA-256.

    Raises
    ------
    OutputError : the file is missing, damaged, or cannot be read.
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


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from writing to a run folder, until the block or the process ends.

    Raises
    ------
    RunError : another process has locked the folder.
    OSError : the folder cannot be opened.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(f"run folder {folder}: another seqd writes to it") from None
        yield
    finally:
        os.close(descriptor)
