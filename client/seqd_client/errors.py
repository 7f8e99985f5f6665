"""The root of every error that seqd shows to a person, and the errors of a client."""

from typing import ClassVar


class SeqdError(Exception):
    """An expected failure: one line that names the thing, the value and what is allowed.

    The command line prints the line and ends with ``exit_code``; nothing else prints errors.
    """

    exit_code: ClassVar[int] = 1


class UnreachableError(SeqdError):
    """A process that should answer does not."""

    exit_code = 9


class SocketError(SeqdError):
    """A socket's address cannot be used."""

    exit_code = 8


class KeysError(SeqdError):
    """Keys of a socket are missing or cannot be used."""

    exit_code = 2


def first_line(error: BaseException) -> str:
    """What an error of somebody else's says, in one line, or its name where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
