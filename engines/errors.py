"""The root of every error that seqd shows to a person, and what of other errors is shown."""

from typing import ClassVar


class SeqdError(Exception):
    """An expected failure: one line that names the thing, the value and what is allowed.

    The command line prints the line and ends with ``exit_code``; nothing else prints errors.
    """

    exit_code: ClassVar[int] = 1


class BundleError(SeqdError):
    """A bundle is missing, incomplete, altered or of another version."""

    exit_code = 4


class EngineError(SeqdError):
    """An engine cannot be opened or failed at work."""

    exit_code = 5


class EngineLostError(SeqdError):
    """An engine's device is gone: no tile is computed until the engine is opened anew, perhaps in a new process.

    No :class:`EngineError`, after which the same engine may compute the next tile.
    """

    exit_code = 5


def first_line(error: BaseException) -> str:
    """What an error of somebody else's says, in one line, or its name where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
