"""The items that the assembler hands on: tile images, and notices that a tile image is missing."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from seqd_client.runinfo import TileId


@dataclass(frozen=True)
class TileImage:
    """All four channels of a tile in a cycle, in memory."""

    tile: TileId
    cycle: int
    pixels: NDArray[np.uint16]
    """(4, H, W)."""


@dataclass(frozen=True)
class SpooledImage:
    """All four channels of a tile in a cycle, in the spool."""

    tile: TileId
    cycle: int


@dataclass(frozen=True)
class MissingImage:
    """A tile-cycle whose frames did not all come."""

    tile: TileId
    cycle: int
    reason: str
    frames: int
    """Number of its frames that came."""


Item = TileImage | SpooledImage | MissingImage
