"""The forms on offer."""

from enum import StrEnum


class Form(StrEnum):
    """What can be emitted of a called tile-cycle."""

    COORDINATES = "coordinates"
    """Where each called cluster is, its base and its quality, as CSV."""
    PROBABILITIES = "probabilities"
    """The network's probability maps, float32 TIFF."""
    MARKED = "marked"
    """The fluorescence image with the calls marked on it, 8-bit RGB TIFF."""
    SUPERRESOLVED = "superresolved"
    """The network's super-resolved images, float32 TIFF."""
