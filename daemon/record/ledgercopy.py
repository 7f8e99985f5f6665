"""Copying a ledger while a daemon writes it."""

import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from daemon.errors import OutputError, storage_error

CHANGING_S = 10.0
"""Time in which a copy has to succeed."""

LOG_HEADER = 32
"""Bytes of the header of SQLite's write-ahead log."""


@contextmanager
def copied(path: Path) -> Iterator[sqlite3.Connection]:
    """A ledger as it stands, in a copy: no file beside it is written, no lock of it taken.

    Raises
    ------
    OutputError : it cannot be copied or read.
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
    """Whether a daemon has the ledger open, or was killed while it had."""
    return _log(path).exists()


def _log(path: Path) -> Path:
    """The write-ahead log; SQLite removes it when the last who writes the database closes it."""
    return path.with_name(f"{path.name}-wal")


def copy_ledger(path: Path, copy: Path) -> None:
    """Copy a database and its log in one consistent state, without SQLite's locks.

    A daemon that closes the ledger while another reads it would leave its log behind, and a reader that comes a
    moment later would make another. The log holds all that a checkpoint may have moved into the database while that
    was copied, as long as it was not begun anew meanwhile; then both are copied again.

    Raises
    ------
    OutputError : it cannot be read, or the copy not be written.
    """
    deadline = time.monotonic() + CHANGING_S
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
                raise OutputError(f"ledger {path}: changes faster than it can be copied, for {CHANGING_S:g} s")
    except OSError as error:
        raise storage_error(f"copy of ledger {path}", error) from error


def _state(path: Path) -> tuple[int, int, bytes]:
    """Differs once a checkpoint wrote the database, or the log was begun anew: its header has new salts then.

    The log's layout: https://sqlite.org/fileformat2.html#walformat
    """
    stat, header = path.stat(), b""
    with suppress(FileNotFoundError), _log(path).open("rb") as file:
        header = file.read(LOG_HEADER)
    return stat.st_mtime_ns, stat.st_size, header
