"""Errors of the running daemon; configuration and wire have their own beside their code."""

from typing import ClassVar

from engines.errors import SeqdError


class OutputError(SeqdError):
    """A file of the run cannot be written or is not what the ledger says."""

    exit_code: ClassVar[int] = 7


class RunError(SeqdError):
    """The run cannot go on."""

    exit_code: ClassVar[int] = 8


class UnreachableError(SeqdError):
    """A process that should answer does not."""

    exit_code: ClassVar[int] = 9
