"""One process at a time writes to a run folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from daemon.errors import RunError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps others out of a run folder, until this ends or the process does.

    Raises
    ------
    RunError : another one is in it.
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
