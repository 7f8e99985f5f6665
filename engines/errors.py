"""The root of every error that seqd shows to a person."""

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
