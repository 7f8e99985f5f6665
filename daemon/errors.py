"""Errors of the running daemon. The errors of the configuration and of messages are in the modules that raise them."""

import errno
import sqlite3
from typing import ClassVar

from seqd_client.errors import SeqdError
from seqd_client.status import StopReason

from engines.errors import BundleError, EngineError, EngineLostError


class OutputError(SeqdError):
    """A file of the run cannot be written, or its content is not as the ledger says."""

    exit_code: ClassVar[int] = 7

    def __init__(self, text: str, *, reason: StopReason = StopReason.OUTPUT_CHANGED) -> None:
        super().__init__(text)
        self.reason = reason


class ExportError(SeqdError):
    """A run cannot be exported as asked."""

    exit_code: ClassVar[int] = 2


class RunError(SeqdError):
    """The run cannot continue."""

    exit_code: ClassVar[int] = 8

    def __init__(self, text: str, *, reason: StopReason = StopReason.REFUSED) -> None:
        super().__init__(text)
        self.reason = reason


_BY_ERRNO = {
    errno.ENOSPC: StopReason.DISK_FULL,
    errno.EDQUOT: StopReason.DISK_FULL,
    errno.EFBIG: StopReason.DISK_FULL,
    errno.EACCES: StopReason.PERMISSION_LOST,
    errno.EPERM: StopReason.PERMISSION_LOST,
    errno.EROFS: StopReason.PERMISSION_LOST,
}

_BY_SQLITE = {
    sqlite3.SQLITE_FULL: StopReason.DISK_FULL,
    sqlite3.SQLITE_IOERR: StopReason.STORAGE_FAILED,
    sqlite3.SQLITE_BUSY: StopReason.STORAGE_FAILED,
    sqlite3.SQLITE_LOCKED: StopReason.STORAGE_FAILED,
    sqlite3.SQLITE_NOMEM: StopReason.OUT_OF_MEMORY,
    sqlite3.SQLITE_READONLY: StopReason.PERMISSION_LOST,
    sqlite3.SQLITE_PERM: StopReason.PERMISSION_LOST,
    sqlite3.SQLITE_CANTOPEN: StopReason.PERMISSION_LOST,
}
"""Any other error would come again if the action were repeated; its reason is ``OUTPUT_CHANGED``."""


def storage_error(what: str, error: OSError | sqlite3.Error | MemoryError) -> OutputError:
    """An :class:`OutputError` for an error of the file system or the database, or for a lack of memory.

    Parameters
    ----------
    what : name of the file or of the action, with which the text begins.
    """
    if isinstance(error, MemoryError):
        return OutputError(f"{what}: no memory is left", reason=StopReason.OUT_OF_MEMORY)
    if isinstance(error, OSError):
        return OutputError(
            f"{what}: {error.strerror or error}", reason=_BY_ERRNO.get(error.errno or 0, StopReason.STORAGE_FAILED)
        )
    # The low byte is the kind of error (https://sqlite.org/rescode.html#pve).
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_IOERR) & 0xFF
    return OutputError(f"{what}: {error}", reason=_BY_SQLITE.get(code, StopReason.OUTPUT_CHANGED))


def stop_reason(error: BaseException) -> StopReason:
    """The reason to stop a run that ends with this error."""
    match error:
        case OutputError() | RunError():
            return error.reason
        case EngineLostError():
            return StopReason.DEVICE_LOST
        case EngineError() | BundleError():
            return StopReason.ENGINE_FAILED
        case MemoryError():
            return StopReason.OUT_OF_MEMORY
        case OSError():
            return storage_error("", error).reason
        case _:
            return StopReason.INTERNAL
