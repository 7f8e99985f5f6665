"""How a flow cell's tiles are numbered: surface, swath and tile, in digits.

``1204`` is surface 1, swath 2, tile 04; ``11304`` is surface 1, swath 1, camera section 3, tile 04. Illumina's software
takes the numbers of surfaces, swaths and tiles from ``RunInfo.xml`` and refuses tiles beyond them.
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from itertools import starmap
from typing import Protocol


class Naming(StrEnum):
    """``TileNamingConvention`` of ``RunInfo.xml``."""

    FOUR_DIGIT = "FourDigit"
    """Surface, swath, tile, tile."""
    FIVE_DIGIT = "FiveDigit"
    """Surface, swath, section, tile, tile."""
    ABSOLUTE = "Absolute"
    """Plain numbers from 1, one surface and one swath."""


@dataclass(frozen=True)
class TilePlace:
    """Where on the flow cell a tile lies; all count from 1."""

    surface: int
    swath: int
    section: int
    tile: int


@dataclass(frozen=True)
class Layout:
    """Extent of the tiles of a flow cell."""

    naming: Naming
    lanes: int
    surfaces: int
    swaths: int
    sections: int
    """Sections of a lane, each with its own camera; 1 if the numbers have no section."""
    tiles: int
    """Tiles of a swath, or of a section of it."""

    def place(self, tile: int) -> TilePlace:
        """Return the place of the tile with this number."""
        return _place(self.naming, tile)


class LaneTile(Protocol):
    """A tile of a lane."""

    @property
    def lane(self) -> int: ...
    @property
    def tile(self) -> int: ...


def layout_of(tiles: Collection[LaneTile]) -> Layout:
    """The smallest layout that holds all tiles, by their numbers."""
    numbers = {one.tile for one in tiles}
    naming = next(kind for kind in Naming if all(_fits(kind, number) for number in numbers))
    places = list(starmap(_place, ((naming, number) for number in numbers)))
    return Layout(
        naming=naming,
        lanes=max(one.lane for one in tiles),
        surfaces=max(place.surface for place in places),
        swaths=max(place.swath for place in places),
        sections=max(place.section for place in places),
        tiles=max(place.tile for place in places),
    )


def _fits(naming: Naming, number: int) -> bool:
    if naming is Naming.ABSOLUTE:
        return True
    digits = 4 if naming is Naming.FOUR_DIGIT else 5
    if len(str(number)) != digits:
        return False
    place = _place(naming, number)
    return place.surface in (1, 2) and 0 not in (place.swath, place.section, place.tile)


def _place(naming: Naming, number: int) -> TilePlace:
    match naming:
        case Naming.FOUR_DIGIT:
            return TilePlace(number // 1000, number // 100 % 10, 1, number % 100)
        case Naming.FIVE_DIGIT:
            return TilePlace(number // 10000, number // 1000 % 10, number // 100 % 10, number % 100)
        case Naming.ABSOLUTE:
            return TilePlace(1, 1, 1, number)
