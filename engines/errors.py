"""Errors of bundles and engines."""

from seqd_client.errors import SeqdError


class BundleError(SeqdError):
    """A bundle is missing, incomplete, altered or of another version."""

    exit_code = 4


class EngineError(SeqdError):
    """An engine cannot be opened, or it failed to compute a tile."""

    exit_code = 5


class WrongAnswerError(EngineError):
    """An engine computes, but its answer differs from the network's answer."""


class EngineLostError(SeqdError):
    """An engine's device is gone: the engine must be opened again, perhaps in a new process.

    After an :class:`EngineError`, in contrast, the same engine may compute the next tile.
    """

    exit_code = 5
