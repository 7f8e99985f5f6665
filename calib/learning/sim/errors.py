"""Refusals of the reconstruction."""

from engines.errors import SeqdError


class ReconstructionError(SeqdError):
    """Frames cannot be reconstructed: their stripes do not fit, or cannot be seen."""

    exit_code = 6
