"""The root of every error that seqd shows to a person, and the errors of a client."""

import reprlib
from typing import ClassVar

from pydantic import ValidationError


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


class ControllerError(SeqdError):
    """A controller was given a frame that its run does not declare, or its methods were called in a wrong order."""


def validation_text(error: ValidationError, *, whole: str = "", shows_value: bool = False) -> str:
    """Give the first finding of a validation in one line, ``place: message`` or ``place is value: message``.

    Parameters
    ----------
    whole : the name that stands as the place of a finding about the whole document, not about one of its fields.
        Without this name, the line for such a finding is the message alone.
    """
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"])) or whole
    if shows_value and first["type"] != "missing":
        # A value may be nested deeper than repr can go.
        place += f" is {reprlib.repr(first['input'])[:60]}"
    return ": ".join(filter(None, (place, first["msg"])))


def first_line(error: BaseException) -> str:
    """Give what an error says in one line, or the error's name where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
