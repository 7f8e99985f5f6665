"""A plan is machine code: who may have written it."""

import os
import stat
from pathlib import Path

from engines.errors import EngineError


def read_trusted(path: Path) -> bytes | None:
    """A file's content, or None where there is no such file.

    File and folder must belong to root or to the user that reads, and nobody else may be able to write
    to them. What is checked is the open file, so that it cannot be exchanged in between.

    Raises
    ------
    EngineError : somebody else could have written the file, or it cannot be read.
    """
    try:
        _check(path.parent, path.parent.stat(), stat.S_ISDIR, "a folder")
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            _check(path, os.fstat(descriptor), stat.S_ISREG, "a file")
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EngineError(f"{path}: {error.strerror}") from error


def _check(path: Path, status: os.stat_result, is_kind: object, kind: str) -> None:
    assert callable(is_kind)
    if not is_kind(status.st_mode):
        raise EngineError(f"{path} is not trusted: it is not {kind}")
    if status.st_uid not in (0, os.geteuid()):
        raise EngineError(
            f"{path} is not trusted: it belongs to user {status.st_uid}, root or {os.geteuid()} is allowed"
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise EngineError(
            f"{path} is not trusted: its mode is {stat.S_IMODE(status.st_mode):04o}, "
            "group and others must not be able to write"
        )
