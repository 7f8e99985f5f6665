"""Opening a ledger from another process than the daemon that may be writing it: from a copy."""

import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from daemon.errors import OutputError, storage_error

COPY_S = 10.0
"""A copy that does not succeed within this time is given up."""

LOG_HEADER = 32
"""Bytes of the header of SQLite's write-ahead log."""


@contextmanager
def copied(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a copy of a ledger, as it is at the moment: nothing beside the ledger is written or locked.

    Raises
    ------
    OutputError : the ledger cannot be copied or read.
    """
    with TemporaryDirectory(prefix="seqd-") as folder:
        copy = Path(folder) / path.name
        copy_ledger(path, copy)
        try:
            with closing(sqlite3.connect(copy)) as database:
                yield database
        except sqlite3.Error as error:
            raise storage_error(f"ledger {path}", error) from error


def is_open(path: Path) -> bool:
    """Whether a daemon has the ledger open, or was killed while the ledger was open."""
    return _log(path).exists()


def _log(path: Path) -> Path:
    """The write-ahead log; SQLite removes it when the last writer closes the database."""
    return path.with_name(f"{path.name}-wal")


def copy_ledger(path: Path, copy: Path) -> None:
    """Copy a database and its log in one consistent state, without SQLite's locks.

    The locks would disturb others: a daemon that closes the ledger while somebody reads it leaves its log behind.
    While the database is copied, a checkpoint may move pages from the log into it. The log still holds these pages,
    so a copy of both is complete, unless the log was begun again meanwhile; then both are copied again.

    Raises
    ------
    OutputError : the ledger cannot be read, or the copy cannot be written.
    """
    deadline = time.monotonic() + COPY_S
    try:
        while True:
            before = _state(path)
            shutil.copyfile(path, copy)
            _log(copy).unlink(missing_ok=True)
            with suppress(FileNotFoundError):
                shutil.copyfile(_log(path), _log(copy))
            if _state(path) == before:
                return
            if time.monotonic() > deadline:
                raise OutputError(f"ledger {path}: changes faster than it can be copied, for {COPY_S:g} s")
    except OSError as error:
        raise storage_error(f"copy of ledger {path}", error) from error


def _state(path: Path) -> tuple[int, int, bytes]:
    """A value that differs after a checkpoint, or after the log was begun again with new salts in its header.

    The log's layout: https://sqlite.org/fileformat2.html#walformat
    """
    stat, header = path.stat(), b""
    with suppress(FileNotFoundError), _log(path).open("rb") as file:
        header = file.read(LOG_HEADER)
    return stat.st_mtime_ns, stat.st_size, header
