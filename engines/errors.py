"""Errors of bundles and engines."""

from seqd_client.errors import SeqdError


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
